"""The block "Cancelling In-Progress Workflows" of the reference, as it stands there; only import and construction are ours."""

from mesh_sdk import ConcurrencyLimitStrategy, Mesh

hatchet = Mesh()


# fmt: off
@hatchet.workflow(on_events=["concurrency-test"])
class Concurrency: # The page has lost the colon.
    @hatchet.concurrency(max_runs=1, limit_strategy=ConcurrencyLimitStrategy.CANCEL_IN_PROGRESS)
    def concurrency(self, context) -> str:
        return context.workflow_input()["user_id"]

    @hatchet.step()
    def step1(self, context):
        print("executed step1")
        pass
# fmt: on


# The block has no worker: the least that runs it.
worker = hatchet.worker("test-worker", workflows=[Concurrency])

if __name__ == "__main__":
    worker.start()
