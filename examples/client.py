"""A program that starts runs and reads about them; `mesh dev examples/hello.py` beside it runs them."""

from mesh_sdk import Mesh

mesh = Mesh()  # MESH_URL and MESH_NAMESPACE, or nats://127.0.0.1:4222 and "default"

print(mesh.run_sync("hello", {"name": "Lin"}))  # start and wait; `await mesh.run(…)` in async code
ref = mesh.start_sync("hello", {"name": "Joan"}, priority=5, metadata={"team": "a"})  # stored from here on, never lost
print(ref.run_id, ref.result_sync(timeout=10))
mesh.events.publish_sync("user:create", {"name": "Mary"})
for run in mesh.runs.list_sync(metadata={"team": "a"}, limit=10):
    print(run.workflow, run.status, run.steps["hello"].worker)
