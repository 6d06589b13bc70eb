"""`mesh worker`: the worker of a user's module, in this process or in several."""

from __future__ import annotations

import os

import click

from mesh.cli import options
from mesh.cli.exits import Exit

TICK_S = 3600.0


@click.command("worker")
@click.argument("target", metavar="MODULE[:ATTR]")
@click.option("--processes", type=click.IntRange(1, 1024), metavar="N", help="Run N of them; MESH_WORKER_ID becomes ID-0 … ID-N-1.")
@options.url
@options.namespace
@options.metrics_port
@options.logs
def command(target: str, processes: int | None, url: str | None, namespace: str | None, metrics_port: int | None) -> int:
    """Run the worker of MODULE until SIGTERM: it drains and ends with 0; a second signal cancels what still runs.

    The current directory comes first on sys.path. Without ATTR the module must hold exactly one worker. Prints a line
    that starts with `ready` once the leader has journaled its registration: an event stored after that finds it.
    """
    if processes is not None:
        return _many(target, processes, url, namespace, metrics_port)
    from mesh.cli.modules import load_worker
    from mesh.cli.process import OnReady, run
    from mesh_sdk.config import override

    override(url, namespace)
    worker = load_worker(target)

    async def serve(on_ready: OnReady) -> None:
        try:
            await worker.serve(on_ready=on_ready, metrics_port=metrics_port)  # which minds the signals
        finally:
            await worker.mesh.close()

    run(serve)
    return Exit.OK


def _many(target: str, processes: int, url: str | None, namespace: str | None, metrics_port: int | None) -> int:
    from mesh.cli.supervisor import Child, ChildFailed, Stopped, Supervisor, mesh_command, port_arguments

    arguments = ["worker", target]
    for option, value in (("--url", url), ("--namespace", namespace)):
        arguments += [option, value] if value else []
    environments = [_environment(index) for index in range(processes)]  # an id that can't be is refused before anything is started
    supervisor = Supervisor()
    children = []
    for index, environment in enumerate(environments):
        command = mesh_command(*arguments, *port_arguments(metrics_port, index))
        children.append(Child(f"worker-{index}", command, environment))
    with supervisor.signals():
        try:
            for child in children:
                supervisor.start(child)
            supervisor.wait_ready(*children)
            click.echo(f"ready {processes} processes")
            supervisor.watch(TICK_S)
        except Stopped:
            return Exit.OK
        except ChildFailed as error:
            click.echo(f"mesh: {error}", err=True)
            return error.code or Exit.FAILED
        finally:
            supervisor.end(*children)


def _environment(index: int) -> dict[str, str]:
    from mesh_sdk.protocol.subjects import check_token

    environment = dict(os.environ)
    if worker := environment.get("MESH_WORKER_ID"):
        environment["MESH_WORKER_ID"] = check_token("worker id (MESH_WORKER_ID and the number of the process)", f"{worker}-{index}")
    return environment
