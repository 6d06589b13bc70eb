"""The block "Sticky Child Workflows" of the reference, as it stands there; only the import and the construction are ours."""

from mesh_sdk import Context, Mesh, StickyStrategy

hatchet = Mesh()


# fmt: off
@hatchet.workflow(
    on_events=["sticky:parent"],
)
class StickyWorkflow:
    # The parents that the block names stand in the page's first block: these two are copied from there.
    @hatchet.step()
    def step1a(self, context: Context):
        return {"worker": context.worker.id()}

    @hatchet.step()
    def step1b(self, context: Context):
        return {"worker": context.worker.id()}

    @hatchet.step(parents=["step1a", "step1b"])
    async def parent_step(self, context: Context):
        ref = context.spawn_workflow('StickyChildWorkflow', {}, options={"sticky": True})
        await ref.result()
        return {"worker": context.worker.id()}
# The page has lost the indentation of what follows.
@hatchet.workflow(
on_events=["sticky:child"],
sticky=StickyStrategy.SOFT
)
class StickyChildWorkflow:
    @hatchet.step()
    def child(self, context: Context):
        return {"worker": context.worker.id()}
# fmt: on


# The block has no worker: the least that runs it.
worker = hatchet.worker("test-worker", workflows=[StickyWorkflow, StickyChildWorkflow])

if __name__ == "__main__":
    worker.start()
