"""What Sigma calls the logs of Windows, Sysmon and Linux, by channel, event number and process.

Services as SigmaHQ's documentation/logsource-guides has them, categories of Sysmon by the numbers of its manual.
"""

from __future__ import annotations

SYSMON = "microsoft-windows-sysmon/operational"

_CHANNELS: dict[str, tuple[str, ...]] = {
    "application": ("Application",),
    "applocker": (
        "Microsoft-Windows-AppLocker/EXE and DLL",
        "Microsoft-Windows-AppLocker/MSI and Script",
        "Microsoft-Windows-AppLocker/Packaged app-Deployment",
        "Microsoft-Windows-AppLocker/Packaged app-Execution",
    ),
    "appmodel-runtime": ("Microsoft-Windows-AppModel-Runtime/Admin",),
    "appxdeployment-server": ("Microsoft-Windows-AppXDeploymentServer/Operational",),
    "appxpackaging-om": ("Microsoft-Windows-AppxPackaging/Operational",),
    "bits-client": ("Microsoft-Windows-Bits-Client/Operational",),
    "capi2": ("Microsoft-Windows-CAPI2/Operational",),
    "certificateservicesclient-lifecycle-system": (
        "Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational",
    ),
    "codeintegrity-operational": ("Microsoft-Windows-CodeIntegrity/Operational",),
    "diagnosis-scripted": ("Microsoft-Windows-Diagnosis-Scripted/Operational",),
    "dns-client": ("Microsoft-Windows-DNS Client Events/Operational", "Microsoft-Windows-DNS-Client/Operational"),
    "dns-server": ("DNS Server",),
    "dns-server-analytic": ("Microsoft-Windows-DNS-Server/Analytical",),
    "dns-server-audit": ("Microsoft-Windows-DNS-Server/Audit",),
    "driver-framework": ("Microsoft-Windows-DriverFrameworks-UserMode/Operational",),
    "firewall-as": ("Microsoft-Windows-Windows Firewall With Advanced Security/Firewall",),
    "iis-configuration": ("Microsoft-IIS-Configuration/Operational",),
    "ldap": ("Microsoft-Windows-LDAP-Client/Debug",),
    "lsa-server": ("Microsoft-Windows-LSA/Operational",),
    "microsoft-servicebus-client": ("Microsoft-ServiceBus-Client",),
    "msexchange-management": ("MSExchange Management",),
    "ntlm": ("Microsoft-Windows-NTLM/Operational",),
    "openssh": ("OpenSSH/Operational",),
    "powershell": ("Microsoft-Windows-PowerShell/Operational", "PowerShellCore/Operational"),
    "powershell-classic": ("Windows PowerShell",),
    "printservice-admin": ("Microsoft-Windows-PrintService/Admin",),
    "printservice-operational": ("Microsoft-Windows-PrintService/Operational",),
    "security": ("Security",),
    "security-mitigations": (
        "Microsoft-Windows-Security-Mitigations/KernelMode",
        "Microsoft-Windows-Security-Mitigations/UserMode",
        "Microsoft-Windows-Security-Mitigations/Kernel Mode",
        "Microsoft-Windows-Security-Mitigations/User Mode",
    ),
    "shell-core": ("Microsoft-Windows-Shell-Core/Operational",),
    "smbclient-connectivity": ("Microsoft-Windows-SmbClient/Connectivity",),
    "smbclient-security": ("Microsoft-Windows-SmbClient/Security",),
    "smbserver-connectivity": ("Microsoft-Windows-SMBServer/Connectivity",),
    "sysmon": ("Microsoft-Windows-Sysmon/Operational",),
    "system": ("System",),
    "taskscheduler": ("Microsoft-Windows-TaskScheduler/Operational",),
    "terminalservices-localsessionmanager": ("Microsoft-Windows-TerminalServices-LocalSessionManager/Operational",),
    "windefend": ("Microsoft-Windows-Windows Defender/Operational",),
    "wmi": ("Microsoft-Windows-WMI-Activity/Operational",),
}

SERVICES_OF_CHANNEL: dict[str, tuple[str, ...]] = {
    channel.lower(): tuple(service for service, named in _CHANNELS.items() if channel in named)
    for channels in _CHANNELS.values()
    for channel in channels
}

OF_SYSMON: dict[str, tuple[str, ...]] = {
    "1": ("process_creation",),
    "2": ("file_change",),
    "3": ("network_connection",),
    "4": ("sysmon_status",),
    "5": ("process_termination",),
    "6": ("driver_load",),
    "7": ("image_load",),
    "8": ("create_remote_thread",),
    "9": ("raw_access_thread",),
    "10": ("process_access",),
    "11": ("file_event",),
    "12": ("registry_event",),
    "13": ("registry_event", "registry_set"),
    "14": ("registry_event", "registry_rename"),
    "15": ("create_stream_hash",),
    "16": ("sysmon_status",),
    "17": ("pipe_created",),
    "18": ("pipe_created",),
    "19": ("wmi_event",),
    "20": ("wmi_event",),
    "21": ("wmi_event",),
    "22": ("dns_query",),
    "23": ("file_delete",),
    "24": ("clipboard_change",),
    "25": ("process_tampering",),
    "26": ("file_delete",),
    "27": ("file_block_executable",),
    "28": ("file_block_shredding",),
    "29": ("file_executable_detected",),
    "255": ("sysmon_error",),
}
"""Categories by the number of Sysmon's event."""

_POWERSHELL = ("microsoft-windows-powershell/operational", "powershellcore/operational")
_CLASSIC = "windows powershell"

OF_EVENT_ID: dict[tuple[str, str], tuple[str, ...]] = {
    ("security", "4688"): ("process_creation",),
    **{(channel, "4104"): ("ps_script",) for channel in _POWERSHELL},
    **{(channel, "4103"): ("ps_module",) for channel in _POWERSHELL},
    (_CLASSIC, "400"): ("ps_classic_start",),
    (_CLASSIC, "600"): ("ps_classic_provider_start",),
    (_CLASSIC, "800"): ("ps_classic_script",),
}
"""Categories by channel and number."""

_LOGINS = ("auth",)
LINUX_SERVICES: dict[str, tuple[str, ...]] = {
    "sshd": ("sshd", *_LOGINS),
    "sudo": ("sudo", *_LOGINS),
    "su": ("su", *_LOGINS),
    "login": _LOGINS,
    "systemd-logind": _LOGINS,
    "useradd": _LOGINS,
    "usermod": _LOGINS,
    "passwd": _LOGINS,
    "polkitd": _LOGINS,
    "pkexec": _LOGINS,
    "cron": ("cron",),
    "crond": ("cron",),
    "crontab": ("cron",),
    "anacron": ("cron",),
    "vsftpd": ("vsftpd",),
    "clamd": ("clamav",),
    "clamav": ("clamav",),
    "freshclam": ("clamav",),
    "clamscan": ("clamav",),
    "guacd": ("guacamole",),
}
"""Services by process."""

WELL_KNOWN: dict[str, tuple[str, ...]] = {
    "apache2": ("apache",),
    "httpd": ("apache",),
    "bro": ("zeek",),
    "mysqld": ("sql", "database"),
    "mariadbd": ("sql", "database"),
    "postgres": ("sql", "database"),
    "postgresql": ("sql", "database"),
    "mysql": ("sql", "database"),
    "clamd": ("antivirus",),
    "clamscan": ("antivirus",),
    "iptables": ("firewall",),
    "java": ("jvm",),
    "node": ("nodejs",),
    "rails": ("ruby_on_rails",),
    "palo alto networks": ("paloalto",),
    "pan-os": ("paloalto",),
    "fortinet": ("fortigate",),
    "cisco asa": ("cisco",),
    "asa": ("cisco",),
    "duo": ("cisco",),
    "junos": ("juniper",),
}
"""By what an event calls itself, what Sigma calls that."""
