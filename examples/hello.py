"""The smallest workflow: one task, started by an event or by name.

Try it:
    mesh dev examples/hello.py                       # or, beside a running mesh: mesh worker examples/hello.py
    mesh publish user:create '{"name": "Ada"}'
    mesh run hello '{"name": "Ada"}' --wait
"""

from mesh_sdk import Context, Mesh

mesh = Mesh()


@mesh.task(on_events=["user:create"], retries=2)
async def hello(user: dict[str, str], ctx: Context) -> dict[str, str]:
    return {"hello": user.get("name", "world"), "from": ctx.worker.name()}


worker = mesh.worker("greeter", slots=10, workflows=[hello])
