"""What whoever starts the app decides: conf/app.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`server`: who may come."""

    host: str
    port: int
    """0: any that is free."""
    share: bool
    users: Path | None
    """A file of lines user:password; None: nobody is asked."""
    open_to_all: bool
    """Let it be reached from outside without `users`."""
    waiting: int
    """Requests in the queue, at most."""
    open_browser: bool

    def validate(self) -> None:
        """Raise ValueError for values out of range, and for an app that is open to everybody by accident."""
        if not 0 <= self.port < 65536:
            raise ValueError(f"server.port={self.port}: choose 1 to 65535, or 0 for any that is free")
        if self.waiting < 1:
            raise ValueError(f"server.waiting={self.waiting}: must be at least 1")
        if self.outside and self.users is None and not self.open_to_all:
            asked = "server.share=true" if self.share else f"server.host={self.host}"
            raise ValueError(
                f"{asked}: others reach the app then; give server.users=<file of lines user:password>, or say that "
                "everybody may come: server.open_to_all=true"
            )

    @property
    def outside(self) -> bool:
        """Tell whether others than this machine's users reach it."""
        return self.share or self.host not in LOOPBACK

    def passwords(self) -> list[tuple[str, str]] | None:
        """Read `users`. Raises ValueError for a file that is missing or holds something else."""
        if self.users is None:
            return None
        path = self.users.expanduser()
        if not path.is_file():
            raise ValueError(f"server.users={path}: no such file; give lines user:password")
        pairs = [line.partition(":")[::2] for line in path.read_text().splitlines() if line.strip()]
        if not pairs or not all(user and password for user, password in pairs):
            raise ValueError(f"server.users={path}: expected lines user:password")
        return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`limits`: what a visitor may ask for, at most."""

    upload_megabytes: int
    megapixels: float
    """Of an uploaded picture."""
    long_side: int
    """Larger pictures are scaled down to it."""
    frames: int
    steps: int
    results: int
    """Videos of a visitor that the page keeps; files stay."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key in self.__dataclass_fields__:
            if not getattr(self, key) > 0:
                raise ValueError(f"limits.{key}={getattr(self, key)}: must be above 0")

    @property
    def upload_bytes(self) -> int:
        """Return the size of a file, at most."""
        return self.upload_megabytes * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSettings:
    """`preview`: what is drawn while the path is edited."""

    short_side: int
    wall_distance: float
    """Scene units; where everything is for which no depth is known."""
    frames_per_second: float

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.short_side < 16:
            raise ValueError(f"preview.short_side={self.short_side}: must be at least 16")
        for key in ("wall_distance", "frames_per_second"):
            if not getattr(self, key) > 0:
                raise ValueError(f"preview.{key}={getattr(self, key)}: must be above 0")
