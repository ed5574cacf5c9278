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
