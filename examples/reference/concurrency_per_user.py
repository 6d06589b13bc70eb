"""The block "Enforcing Per-User Concurrency Limits" of the reference, as it stands there; only import and construction are ours."""

from mesh_sdk import ConcurrencyLimitStrategy, Mesh

hatchet = Mesh()


# fmt: off
@hatchet.workflow(on_events=["concurrency-test"])
class ConcurrencyDemoWorkflow:
    @hatchet.concurrency(max_runs=1, limit_strategy=ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN)
    def concurrency(self, context) -> str:
        return context.workflow_input()["user_id"]

    @hatchet.step()
    def step1(self, context):
        print("executed step1")
        pass
# fmt: on


# The block has no worker: the least that runs it.
worker = hatchet.worker("test-worker", workflows=[ConcurrencyDemoWorkflow])

if __name__ == "__main__":
    worker.start()
