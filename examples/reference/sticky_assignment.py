"""The first block of "Sticky Worker Assignment" of the reference, as it stands there; only the import and the construction are ours."""

from mesh_sdk import Context, Mesh, StickyStrategy

hatchet = Mesh()


# fmt: off
@hatchet.workflow(
    on_events=["user:create"],
    sticky=StickyStrategy.SOFT, # <-- specify the sticky strategy
)
class StickyWorkflow:
    @hatchet.step()
    def step1a(self, context: Context):
        return {"worker": context.worker.id()}

    @hatchet.step()
    def step1b(self, context: Context):
        return {"worker": context.worker.id()}

    @hatchet.step(parents=["step1a", "step1b"])
    def step2(self, context: Context):
        return {"worker": context.worker.id()}
# fmt: on


# The block has no worker: the least that runs it.
worker = hatchet.worker("test-worker", workflows=[StickyWorkflow])

if __name__ == "__main__":
    worker.start()
