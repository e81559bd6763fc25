"""A unit with which systemd keeps a server running, as nobody, and away from all that it does not need."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from darkroom.config import ServeConfig
from darkroom.provenance import available_cores

TEMPLATE = """\
# Put this into /etc/systemd/system/darkroom.service, then: systemctl daemon-reload && systemctl enable --now darkroom
# The server runs as a user of its own, without rights: program and bundle must be readable for all, so not in /root.
[Unit]
Description=darkroom serves {name}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=2
# SIGTERM goes to the server alone: its workers have to outlive it until what has begun is answered.
KillMode=mixed
TimeoutStopSec={stop}
DynamicUser=yes
Environment=PYTHONUNBUFFERED=1
LimitNOFILE=4096
MemoryMax={memory}M
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""

SERVER_MEGABYTES, WORKER_MEGABYTES = 400, 400
"""Of the server and of each of its workers with a model of usual size, beside requests and pictures."""

BYTES_A_PIXEL = 12
"""Of a picture while it is decoded: with transparency, without, and on its background."""


def unit(program: Sequence[str], bundle: Path, settings: ServeConfig) -> str:
    """The unit of `darkroom serve` with these settings; `program` is what starts darkroom."""
    words = [*program, "serve", str(bundle.resolve()), *_options(settings)]
    return TEMPLATE.format(
        name=_escaped(bundle.resolve().name),
        command=" ".join(map(_quoted, words)),
        stop=round(settings.stop_seconds) + 10,
        memory=round(SERVER_MEGABYTES + settings.max_memory_megabytes + _workers(settings)),
        capabilities="CAP_NET_BIND_SERVICE" if 0 < settings.port < 1024 else "",
    )


def _workers(settings: ServeConfig) -> float:
    """Megabytes of all workers, each with a picture of the largest size."""
    return (settings.workers or available_cores()) * (WORKER_MEGABYTES + BYTES_A_PIXEL * settings.max_megapixels)


def _options(settings: ServeConfig) -> Iterator[str]:
    """The options that are not as usual; those of files by their whole path."""
    for field in fields(settings):
        value, option = getattr(settings, field.name), "--" + field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield option if value else option.replace("--", "--no-", 1)
        else:
            yield option
            yield str(value.resolve() if isinstance(value, Path) else value)


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads it (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if not escaped or any(mark in escaped for mark in " \t;'\"#*\\") else escaped


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")
