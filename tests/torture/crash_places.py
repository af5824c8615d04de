"""The named places at which a process of a node may be made to kill itself."""

from typing import NamedTuple


class Place(NamedTuple):
    """Just before or after a call. `process` is whose: only a node's death ends the node.

    `is_rare`: passed about once in a node's life, so that its later passages are in later lives.
    """

    name: str
    module: str
    attribute: str
    is_after: bool
    process: str
    is_rare: bool


def _places(process: str, *words: str, is_rare: bool = False) -> list[Place]:
    """Read places from words like `pool:Pool.hand_out before after`."""
    found: list[Place] = []
    for word in words:
        target, *sides = word.split()
        module, _, attribute = target.partition(":")
        found += [
            Place(f"{side} {target}", f"jobsched.{module}", attribute, side == "after", process, is_rare)
            for side in sides
        ]
    return found


PLACES = {
    place.name: place
    for place in (
        *_places(
            "node",
            "ownership:_node_lock before",
            "ownership:Listener.__init__ before after",
            "ownership:_writers_lock before",
            "ownership:open_store before after",
            "fence:sweep before",
            "fence:wait_free before",
            "store.lmdb:LmdbStore.recover before after",
            "fence:clear before after",
            "node:Node._open before after",
            "preloader_link:PreloaderLink.__init__ before after",
            "node:Node.stop before after",
            "pool:Pool.dismiss before after",
            "crew:Crew.close before after",
            "store.lmdb:LmdbStore.close before after",
            "listener:Listener.close before after",
            is_rare=True,
        ),
        *_places(
            "node",
            "loop:Loop.wait after",
            "node:Node._tend before after",
            "node:Node._compose before after",
            "reception:Reception.take before after",
            "reception:Reception.requests after",
            "crew:Crew.take_news after",
            "store.lmdb:LmdbStore.apply before after",
            "crash_launcher:WatchedTransaction.commit before after",
            "node:Node._deliver before after",
            "pool:Pool.hand_out before after",
            "worker_link:WorkerLink.hand_out before after",
            "worker_link:WorkerLink.fall before after",
            "worker_link:WorkerLink.revoke before after",
            "reception:Reception.answer before after",
            "reception:Reception.settle before after",
            "crew:Crew._finish before after",
            "crew:Crew._bury before after",
            "preloader_link:PreloaderLink.fork before after",
            "pool:Pool.reconcile before after",
        ),
        *_places(
            "preloader",
            "preloader:load before after",
            is_rare=True,
        ),
        *_places(
            "preloader",
            "preloader:_Preloader._start before after",
            "preloader:_Preloader._reap before after",
        ),
        *_places(
            "worker",
            "preloader:_Preloader._let_go before",
            "preloader:run_worker before",
            "fence:take before after",
            "worker:Worker.run before",
            "worker:Worker._run before after",
            "runner:Runner._call before after",
            "channel:Channel.send before after",
            "channel:Channel.receive before after",
        ),
    )
}
