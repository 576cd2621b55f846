import os

from celery.schedules import crontab, timedelta

EVERY = 5
RABBITMQ = {"mqserver": os.getenv("MQ", "localhost")}

ALERTS = {
    "foo.AlertFoo": {"schedule": crontab(minute="*/1")},
    "bruteforce_ssh.AlertBruteforceSsh": {"schedule": crontab(minute="*/5"), "kwargs": {"threshold": 3}},
    "deadman_backup.DeadmanBackup": {"schedule": timedelta(hours=1), "args": ["db1", "db2"]},
    "combined.AlertCombined": {"schedule": timedelta(minutes=EVERY)},
    "uploads.AlertUploads": {"schedule": crontab(hour="3", minute=[0, 30])},
    "many_names.AlertManyNames": {"schedule": crontab(minute="*/15")},
    "generic_loader.AlertGenericLoader": {"schedule": crontab()},
    "old_style.AlertOldStyle": {"schedule": crontab(minute="*/10")},
    "privileged.AlertPrivileged": {"schedule": crontab()},
}
ALERTS["searched.AlertSearched"] = {"schedule": crontab(minute="0-59/10")}

ALERT_PLUGINS = ["where_from"]
