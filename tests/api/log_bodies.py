"""Bodies that log in other processes."""

import logging

import cloaca

log = logging.getLogger("far")
log.setLevel(logging.DEBUG)


def logs(context: cloaca.Context) -> None:
    log.info("there")
    for number in range(2):
        log.debug(number)


def logs_and_fails(context: cloaca.Context) -> None:
    log.error("with %s", context["token"])
    raise ValueError("no")


def chatters(context: cloaca.Context) -> None:
    for number in range(context["lines"]):
        log.info("%05d %s", number, "x" * 200)


def logs_at_length(context: cloaca.Context) -> None:
    for number in range(3):
        log.info(number)
    log.info("y" * 300_000)
    log.info("…" * 200 + "z" * 16_170 + context["token"])
    log.info("end")


class Ends:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __str__(self) -> str:
        raise self.kind


def logs_what_ends(context: cloaca.Context) -> None:
    for kind in (SystemExit, GeneratorExit, KeyboardInterrupt, BaseException):
        if kind.__name__ in context["kinds"]:
            log.info("of %s", Ends(kind))
            log.info(Ends(kind))
