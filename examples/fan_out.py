"""Fan-out: a step spawns children and awaits them; its slot is lent out meanwhile, so two slots are enough for any number.

Try it:
    mesh dev examples/fan_out.py          # in one terminal
    python examples/fan_out.py 20         # in another
"""

import asyncio
import sys

from mesh_sdk import Context, Mesh, Spawn

mesh = Mesh()


@mesh.task()
def square(number: int, ctx: Context) -> int:
    return number * number


@mesh.task()
async def sum_of_squares(count: int, ctx: Context) -> int:
    children = ctx.spawn_workflows([Spawn(square, number) for number in range(count)])
    return sum(await asyncio.gather(*(child.result() for child in children)))


worker = mesh.worker("calculator", slots=2, workflows=[square, sum_of_squares])


async def main(counts: list[int]) -> None:
    async with mesh:
        for count, result in zip(counts, await sum_of_squares.run_many(counts), strict=True):
            print(f"the first {count} squares add up to {result}")


if __name__ == "__main__":
    asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [10]))
