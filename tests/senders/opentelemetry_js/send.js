// Sends "event FIRST of the shop" to "event LAST - 1 of the shop", for each "FIRST LAST" line of standard input.
// What the exporter gives up is tried again: the SDK alone would drop it, and only its diagnostics would say so.
import readline from "node:readline";
import { SeverityNumber } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const [url, key] = process.argv.slice(2);
const exporter = new OTLPLogExporter({ url, headers: { Authorization: `Bearer ${key}` }, timeoutMillis: 30000 });
let givenUp = 0;

const persistent = {
  export(records, done) {
    exporter.export(records, (result) => {
      if (result.code === 0) return done(result);
      givenUp += 1;
      setTimeout(() => this.export(records, done), 500);
    });
  },
  forceFlush: () => exporter.forceFlush(),
  shutdown: () => exporter.shutdown(),
};

const provider = new LoggerProvider({
  resource: resourceFromAttributes({ "service.name": "shop", "host.name": "web-1" }),
  processors: [
    new BatchLogRecordProcessor({
      exporter: persistent,
      maxQueueSize: 1000000,
      maxExportBatchSize: 500,
      scheduledDelayMillis: 100,
      exportTimeoutMillis: 600000,
    }),
  ],
});
const logger = provider.getLogger("shop.cart", "1.0");

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [first, last] = line.split(" ").map(Number);
  for (let number = first; number < last; number += 1) {
    logger.emit({
      severityNumber: SeverityNumber.WARN,
      severityText: "WARN",
      body: `event ${number} of the shop`,
      attributes: { n: number },
    });
    if (number % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  console.log("handed over");
}
await provider.forceFlush();
await provider.shutdown();
console.log(`given up and tried again: ${givenUp}`);
