"""Events: one event starts one run of every workflow that listens, the names may hold wildcards.

Try it:
    mesh dev examples/on_event.py         # in one terminal
    python examples/on_event.py           # in another

Any NATS client publishes events: JSON on mesh.default.events.order.paid, no header needed.
"""

import asyncio

from mesh_sdk import Context, Mesh

mesh = Mesh()


@mesh.task(on_events=["order.created"])
async def reserve(order: dict[str, int], ctx: Context) -> str:
    return f"order {order['id']} reserved"


@mesh.task(on_events=["order.*"])
async def audit(order: dict[str, int], ctx: Context) -> str:
    return f"order {order['id']} seen by {ctx.workflow_name}, from an event: {ctx.triggered_by_event()}"


worker = mesh.worker("orders", slots=10, workflows=[reserve, audit])


async def main() -> None:
    async with mesh:
        event = await mesh.events.publish("order.created", {"id": 7}, id="order-7-created")
        again = await mesh.events.publish("order.created", {"id": 7}, id="order-7-created")  # the same event: stored once
        print(f"event {event.sequence} is stored, once: {event.sequence == again.sequence}")


if __name__ == "__main__":
    asyncio.run(main())
