"""The block "Declaring a Worker" of the reference, as it stands there; only the import and the construction are ours."""

from mesh_sdk import Context, Mesh

hatchet = Mesh()


# The block uses a task `simple` and leaves it undefined: the least that completes it.
@hatchet.task()
def simple(input: dict, ctx: Context) -> dict:
    return {"worker": ctx.worker.name()}


# fmt: off
def main() -> None:
  worker = hatchet.worker("test-worker", workflows=[simple])
  worker.start()

if __name__ == "__main__":
    main()
