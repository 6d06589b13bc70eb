"""A typed DAG: two steps side by side, a third that joins them; Pydantic models in and out.

Try it:
    mesh dev examples/typed_dag.py        # in one terminal
    python examples/typed_dag.py          # in another
"""

import asyncio

from pydantic import BaseModel

from mesh_sdk import Context, Mesh

mesh = Mesh()


class Order(BaseModel):
    id: int
    total: float


class Receipt(BaseModel):
    order_id: int
    charged: float
    shelf: str


fulfil = mesh.workflow(name="fulfil", input=Order)


@fulfil.step()
def reserve(order: Order, ctx: Context) -> str:
    return f"shelf-{order.id % 7}"


@fulfil.step(retries=3, backoff_factor=2.0)
async def charge(order: Order, ctx: Context) -> float:
    return round(order.total * 1.2, 2)


@fulfil.step(parents=[reserve, charge])
async def ship(order: Order, ctx: Context) -> Receipt:
    return Receipt(order_id=order.id, charged=ctx.step_output(charge), shelf=ctx.step_output(reserve))


worker = mesh.worker("warehouse", slots=10, workflows=[fulfil])


async def main() -> None:
    async with mesh:
        receipt = Receipt.model_validate(await fulfil.run(Order(id=12, total=10.0)))
        print(f"order {receipt.order_id} charged {receipt.charged} and shipped from {receipt.shelf}")


if __name__ == "__main__":
    asyncio.run(main())
