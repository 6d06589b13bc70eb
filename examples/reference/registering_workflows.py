"""The block "Registering Workflows and Starting Workers" of the reference, as it stands there; only the import and the
construction are ours. It starts its worker where it stands, so it is run as a program, not with `mesh worker`.
"""

from mesh_sdk import Context, Mesh

hatchet = Mesh()


# The block uses a class `MyWorkflow` and leaves it undefined: the least that completes it.
@hatchet.workflow()
class MyWorkflow:
    @hatchet.step()
    def step1(self, context: Context) -> dict:
        return {"worker": context.worker.name()}


# fmt: off
workflow = MyWorkflow()
worker = hatchet.worker('test-worker', max_runs=4)
worker.register_workflow(workflow)
worker.start()
