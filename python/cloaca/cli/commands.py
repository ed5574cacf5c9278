"""Which commands there are, in the order in which the help lists them.

Longer than a room should be: one table.
"""

from __future__ import annotations

from .command import Command, Option

FILTERS = (
    Option("--workflow", "only of this workflow", "NAME", completes="workflow"),
    Option("--trigger", "only of this trigger", "NAME", completes="trigger"),
    Option("--key", "only with this run key", "KEY"),
    Option(
        "--parent",
        "only what came of this run: by its tasks, its callbacks, a trigger told of its end, or again",
        "RUN",
        completes="run",
    ),
    Option("--error", "only with this class of error, such as ValueError", "TYPE"),
    Option(
        "--since",
        "only created so long ago or later: 24h, 7d, or a time; local if it has no zone. Of runs that are"
        " over, by --failed, --status or --error, only ended then or later",
        "WHEN",
    ),
    Option("--until", "only created, or ended, before then", "WHEN"),
)
STATUS = Option(
    "--status",
    "only those that stand so",
    "STATUS",
    choices=("Pending", "Running", "Completed", "Failed", "Cancelled"),
)
LIMIT = Option("--limit", "at most so many", "N", default=50)
APP = Option("--app", "the program's module, or its file; else [tool.cloaca] app", "MODULE", completes="file")
UNMASKED = Option("--unmasked", "show what the program hides by redact=, too")
LOG = Option(
    "--log",
    "how lines of the log look; json: one object a line, in place of what the program has set",
    "FORM",
    choices=("text", "json"),
)
YES = Option("--yes", "don't ask")
RUN = Option("run", "a run's id, or how it begins", "RUN", completes="run")
TRIGGERS = Option("name", "triggers, or ids of crons without a name", "NAME", many=True, completes="trigger")

COMMANDS = (
    Command(
        "ls",
        "Triggers, crons, workflows and runners: what each does, the failing ones first.",
        "cloaca ls",
        "look:ls",
        (
            Option(
                "kind",
                "only these",
                "KIND",
                optional=True,
                choices=("triggers", "crons", "workflows", "runners"),
            ),
            Option("--limit", "look at so many of a kind", "N", default=1000),
        ),
    ),
    Command(
        "runs",
        "Runs, newest first.",
        "cloaca runs --failed --since 24h",
        "look:runs",
        (
            Option("--failed", "the same as --status Failed"),
            STATUS,
            *FILTERS,
            Option("--untold", "only with an end that a callback of their workflow is still to be told of"),
            Option(
                "--text",
                "only with this in its id, names, key, error, or the context that it began with, not what"
                " came out; looks for 50 ms and at 2,000 runs in any case, or with --all to the end",
                "TEXT",
            ),
            LIMIT,
            Option("--after", "go on behind this run", "RUN", completes="run"),
            Option("--all", "all of them, however many"),
            Option("--context", "their first contexts, too, in a column of their own"),
            UNMASKED,
        ),
    ),
    Command(
        "show",
        "One run as a tree of its tasks and their attempts.",
        "cloaca show 01a21f7a --context",
        "tree:show",
        (
            RUN,
            Option("--context", "what it began with, what each task left, and what came out"),
            Option("--diff", "what each task changed in the context"),
            Option("--traceback", "where attempts failed"),
            Option("--wait", "wait until it is over; exit 1 unless it completed"),
            UNMASKED,
        ),
        "`cloaca run RUN` is the same, if RUN is a whole id.",
    ),
    Command(
        "logs",
        "What the bodies of a run logged, where a runner keeps that, oldest first.",
        "cloaca logs 01a21f7a --level WARNING",
        "logs:logs",
        (
            RUN,
            Option("--task", "only of this task", "ID"),
            Option("--attempt", "only of this attempt", "N"),
            Option("--level", "only so grave or graver: DEBUG, INFO, WARNING, ERROR, or a number", "LEVEL"),
            Option("--limit", "at most so many, the newest", "N", default=1000),
            Option("--follow", "go on with what comes, until the run is over"),
            UNMASKED,
        ),
        "A runner keeps it that was opened with keep_logs=; what bodies print is not among it.",
    ),
    Command(
        "ticks",
        "What the polls of a trigger, or the moments of a cron that decides, came to, newest first.",
        "cloaca ticks inbox",
        "look:ticks",
        (TRIGGERS._replace(many=False, about="a trigger, or a cron"), LIMIT, UNMASKED),
        "Quiet polls are written every 30 seconds: the newest may not be there yet.",
    ),
    Command(
        "why",
        "One sentence: why a trigger does not fire, a run is not over, or a workflow's runs wait.",
        "cloaca why inbox",
        "look:why",
        (Option("name", "triggers, runs, or workflows", "NAME", many=True, completes="any"),),
    ),
    Command(
        "preview",
        "What a poll of a trigger would come to now, with what would become of each fire.",
        "cloaca preview inbox --app app.py",
        "preview:preview",
        (TRIGGERS._replace(many=False, about="a trigger, or a cron with a name"), APP, UNMASKED),
        "It imports the program and calls the trigger's function, once and here: what that does by itself,\n"
        "it does. Nothing starts, and nothing is kept. Exit 1 if the poll would fail. Before the program's\n"
        "first start it is what a first poll would come to.",
    ),
    Command(
        "doctor",
        "Whether all is well with the store and who serves it; exit 1 if something is bad.",
        "cloaca doctor",
        "look:doctor",
        (Option("--thorough", "check the whole file, however large"),),
    ),
    Command(
        "health",
        "Whether triggers are polled and runs begin; exit 1 and the reasons if not. Cheap, for a probe.",
        "cloaca health",
        "look:health",
        (),
        "`doctor` looks at more, the file and its surroundings among it, takes its time, and warns.",
    ),
    Command(
        "metrics",
        "How the store stands, as Prometheus reads it: for a collector of text files, or to look.",
        "cloaca metrics",
        "look:metrics",
        (),
        "What a runner counts it tells itself: by cloaca.telemetry.prometheus_app(runner), or by its page\n"
        'under /metrics. Needs pip install "cloaca[prometheus]", but for --json.',
    ),
    Command(
        "export",
        "Write a copy of everything to a new file, beside whoever serves the store.",
        "cloaca export backup.db",
        "look:export",
        (Option("path", "the new file", "PATH", completes="file"),),
    ),
    Command(
        "copy",
        "Copy a store that nobody serves to a new place, to go on there.",
        "cloaca copy runs.db /srv/runs.db",
        "store:copy",
        (
            Option("source", "the store", "SRC", completes="file"),
            Option(
                "target",
                "the new one, of which there is nothing yet: a file, or a schema on a server",
                "DST",
                completes="file",
            ),
        ),
        "All goes along: schedules with their cursors, run keys, unfinished runs, history. Either may be a\n"
        "file or on a server: `cloaca copy runs.db postgresql://db.example/app`. Beside a living runner\n"
        "`cloaca export` makes a backup.",
    ),
    Command(
        "migrate",
        "Bring a store of an older version up to date, as the first runner of this one would.",
        "cloaca migrate --print",
        "store:migrate",
        (Option("--print", "only print the SQL, and change nothing"), YES),
        "An older cloaca can't open it any more: keep a copy. Refused while a runner of that version lives.",
    ),
    Command(
        "graph",
        "A workflow's tasks and their order.",
        "cloaca graph ingest --app app.py --format mermaid",
        "graph:graph",
        (
            Option("workflow", "its name; may be left out if the program has one", optional=True),
            APP,
            Option(
                "--format",
                "text, svg, mermaid or dot",
                "FORMAT",
                default="text",
                choices=("text", "svg", "mermaid", "dot"),
            ),
        ),
        "It imports the program, if one is named here or in pyproject.toml and no store is. Else it draws"
        " what the store keeps: the workflow as it was declared or executed last.",
    ),
    Command(
        "runners",
        "Who serves the store.",
        "cloaca runners --left",
        "look:runners",
        (Option("--left", "also the last hundred that left"),),
    ),
    Command(
        "audit",
        "Which changes people made by the page or the command line, newest first.",
        "cloaca audit --limit 20",
        "look:audit",
        (
            Option("about", "only those of it", "RUN|NAME", optional=True, completes="any"),
            LIMIT,
        ),
        "100,000 are kept. What programs do by the Python API is not among them.",
    ),
    Command(
        "enable",
        "Switch triggers or crons on; kept across restarts.",
        "cloaca enable inbox",
        "change:enable",
        (TRIGGERS,),
    ),
    Command(
        "disable",
        "Switch triggers or crons off; kept across restarts.",
        "cloaca disable inbox nightly",
        "change:disable",
        (TRIGGERS,),
    ),
    Command(
        "limits",
        "Limits with names: how many of their seats are taken, and what is paused.",
        "cloaca limits",
        "look:limits",
        (UNMASKED,),
    ),
    Command(
        "pause",
        "Let no run of a workflow begin, or no attempt under a limit; what has begun goes on.",
        "cloaca pause --limit github-api --for 10m",
        "change:pause",
        (
            Option("--workflow", "of this workflow no run begins", "NAME", completes="workflow"),
            Option(
                "--key",
                "of the workflow only what its limits count for this value of its key",
                "VALUE",
                takes_empty=True,
            ),
            Option("--limit", "under this limit no attempt begins", "NAME", completes="limit"),
            Option("--until", "it ends at this time; local if it has no zone", "WHEN"),
            Option("--for", "it ends so much later, such as 10m", "SPAN"),
            Option("--yes", "also for a key that none of the newest runs has"),
        ),
        "Without --until or --for only `cloaca resume` ends it. It holds in every process on the store.",
    ),
    Command(
        "resume",
        "End a pause.",
        "cloaca resume --limit github-api",
        "change:resume",
        (
            Option("--workflow", "of this workflow", "NAME", completes="workflow"),
            Option("--key", "of this value of its key", "VALUE", takes_empty=True),
            Option("--limit", "of this limit", "NAME", completes="limit"),
        ),
    ),
    Command(
        "cancel",
        "Ask for the end of runs.",
        "cloaca cancel --all --workflow ingest",
        "change:cancel",
        (
            RUN._replace(many=True, optional=True),
            Option("--all", "all that are not over and pass the filters, after asking"),
            STATUS._replace(choices=("Pending", "Running")),
            *FILTERS,
            YES,
        ),
        "No further task of such a run begins; one that is under way may finish.",
    ),
    Command(
        "retry",
        "Open runs that failed or were cancelled again: what completed stays, the rest is decided anew.",
        "cloaca retry --all --error OSError --since 24h",
        "change:retry",
        (
            RUN._replace(many=True, optional=True),
            Option("--all", "all that failed and pass the filters, after asking"),
            Option("--failed", "the same as --status Failed"),
            STATUS._replace(
                about="with --all those that stand so: Failed, as if it is not given, or Cancelled",
                choices=("Failed", "Cancelled"),
            ),
            *FILTERS,
            YES,
        ),
        "A living runner that declares the workflow takes them; without one they wait.",
    ),
    Command(
        "submit",
        "Start a run of a workflow, or of what a run was, in a living runner that declares it.",
        'cloaca submit ingest --context \'{"file": "a.txt"}\' --wait',
        "change:submit",
        (
            Option("workflow", "its name", "WORKFLOW", optional=True, completes="workflow"),
            Option(
                "--again",
                "do that run's work again from its start: the same workflow and context",
                "RUN",
                completes="run",
            ),
            Option(
                "--context",
                "a JSON object; @FILE reads a file, - the standard input; {} if not given",
                "JSON",
            ),
            Option("--key", "start at most one run with this key in 30 days", "KEY"),
            Option(
                "--priority",
                "how urgent it is, from 0 to 9, which goes first; by default its workflow's",
                "N",
            ),
            Option("--at", "it begins at this time or later", "WHEN"),
            Option("--delay", "it begins so long from now, or later", "SPAN"),
            Option("--wait", "wait until it is over; exit 1 unless it completed"),
            APP,
        ),
        "A workflow that has never run is known to the program alone: give --app for its first run.",
    ),
    Command(
        "poll",
        "Have whoever polls a trigger poll it once now, also if it waits because it failed.",
        "cloaca poll inbox",
        "change:poll",
        (Option("name", "its name", "NAME", completes="trigger"),),
        "Says what came of it, a skip as well, if that is on record within 3 seconds, else that it was asked"
        " for. Exit 1 if it is off, or nobody polls it. A cron is not polled: cloaca submit.",
    ),
    Command(
        "tell",
        "Have the callbacks of ended runs, which wait after calls that raised, called now.",
        "cloaca tell --all --workflow ingest",
        "change:tell",
        (
            RUN._replace(name="run", about="runs' ids, or how they begin", many=True, optional=True),
            Option("--all", "all that wait"),
            Option("--workflow", "of those only this workflow's", "NAME", completes="workflow"),
        ),
        "Whoever declares the workflow calls it. `cloaca runs --untold` lists them, and `cloaca skip --run"
        " RUN` drops one that will never succeed.",
    ),
    Command(
        "skip",
        "Have a trigger with on_run go on without the end of a run that it fails at, or drop the callback of"
        " a run.",
        "cloaca skip broken --yes",
        "change:skip",
        (
            Option(
                "name",
                "the trigger's name; without one, the callback of the run that --run names is dropped",
                "NAME",
                optional=True,
                completes="trigger",
            ),
            Option(
                "--run",
                "of which run; of a trigger by default the end that it is told of next",
                "RUN",
                completes="run",
            ),
            YES,
        ),
        "The ends after it wait for that one: `cloaca why NAME` tells which it is. What the function has done"
        " for it stays done; what a call under way comes to counts for nothing. A callback under way goes"
        " on.",
    ),
    Command(
        "forget",
        "Delete what is kept of triggers that no living runner polls; their runs stay.",
        "cloaca forget old_inbox",
        "change:forget",
        (TRIGGERS._replace(about="their names"), YES),
    ),
    Command(
        "rename",
        "Give what is kept of a trigger another name, before the first start of the program with that name.",
        "cloaca rename order_files csv_orders",
        "change:rename",
        (
            Option("name", "its name so far", "NAME", completes="trigger"),
            Option("new_name", "its name from now on", "NEW_NAME"),
        ),
        "Its cursor, run keys, history and runs go along, so nothing is handled again. If only the new name"
        " is kept there is nothing to do: a deploy may call it each time.",
    ),
    Command(
        "prune",
        "Delete runs that ended before some time, with their tasks.",
        "cloaca prune --before 90d",
        "change:prune",
        (Option("--before", "ended so long ago, or before this time", "WHEN"), YES),
    ),
    Command(
        "run",
        "Import a program and serve it until a signal; or, given a run's whole id, show that.",
        "cloaca run app.py",
        "serve:run",
        (
            Option(
                "module",
                "MODULE, FILE.py, either with :RUNNER, or a run's id",
                "MODULE",
                optional=True,
                completes="file",
            ),
            Option("--reload", "start it again whenever one of its files changes"),
            Option(
                "--workers",
                "so many processes that share the store; one that dies is replaced",
                "N",
                default=1,
            ),
            Option(
                "--metrics",
                "where it answers /metrics, /healthz and /readyz: a port of this machine, or HOST:PORT; of"
                " several workers each at the next port",
                "ADDRESS",
            ),
            LOG,
            Option("--context", "of a run: see show"),
            Option("--diff", "of a run: see show"),
            Option("--traceback", "of a run: see show"),
            Option("--wait", "of a run: see show"),
        ),
        "RUNNER is a DefaultRunner of the module, or a function, which makes one or serves by itself.\n"
        "Without it, it is the one that importing made, or else one is made on the store.",
    ),
    Command(
        "dev",
        "The same as run --reload, with the page, which acts, beside it on this machine.",
        "cloaca dev app.py --open",
        "serve:dev",
        (
            Option("module", "see run", "MODULE", optional=True, completes="file"),
            LOG,
            Option("--port", "the page's port", "N", default=8720),
            Option("--open", "show the page in the browser"),
        ),
    ),
    Command(
        "ui",
        "Serve the page of a store, on this machine; it only reads unless --act is given.",
        "cloaca ui runs.db",
        "serve:page",
        (
            Option("url", "the store; else as --database", "URL", optional=True, completes="file"),
            Option("--host", "listen there; another than this machine's own needs --token", "HOST"),
            Option("--port", "listen on this port", "N", default=8720),
            Option("--prefix", "the path under which a proxy passes it on", "PATH", takes_empty=True),
            Option("--token", "ask everybody for this; better in CLOACA_UI_TOKEN", "TEXT"),
            Option("--act", "let it change things, too: retry, cancel, switch, pause, run again"),
            LOG,
        ),
        'Needs pip install "cloaca[ui]". In a program, cloaca.ui.app(runner) acts and previews.\n'
        "Begun before who serves the store has made it, it waits for that.",
    ),
    Command(
        "new",
        "Make a small project that works at once.",
        "cloaca new demo",
        "new:new",
        (Option("name", "the new folder", "NAME"),),
    ),
    Command(
        "completion",
        "Print what makes a shell complete commands, triggers, workflows and runs.",
        'eval "$(cloaca completion bash)"',
        "complete:completion",
        (Option("shell", "bash, zsh or fish", "SHELL", choices=("bash", "zsh", "fish")),),
    ),
    Command(
        "complete",
        "What the words of a line may go on with, one a line.",
        "cloaca complete why in",
        "complete:complete",
        (Option("words", "the line so far", many=True, optional=True),),
        is_hidden=True,
    ),
)


def named(name: str) -> Command | None:
    """The command of that name."""
    return next((command for command in COMMANDS if command.name == name), None)
