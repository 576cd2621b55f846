raise RuntimeError("nobody asked for it")
