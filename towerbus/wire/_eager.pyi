from collections.abc import Iterable

from towerbus.wire.eager import O

def send_each(outlets: Iterable[O], data: bytes, /) -> list[tuple[O, int]]: ...
