"""Flow control: tenants are served in turn, a newer search replaces an older one, and mails leave no faster than they may.

Try it:
    mesh dev examples/flow_control.py          # in one terminal
    python examples/flow_control.py            # in another
"""

import asyncio
import time

from mesh_sdk import Concurrency, Context, Mesh, RateLimit, RunCancelled, RunRef

mesh = Mesh()


@mesh.task(concurrency=Concurrency("input.tenant", max_runs=2))  # at most two of a tenant at once, and tenants in turn
async def invoice(data: dict[str, str], ctx: Context) -> str:
    await asyncio.sleep(0.05)
    return data["tenant"]


@mesh.task(concurrency=Concurrency("input.user", max_runs=1, limit_strategy="CANCEL_IN_PROGRESS"))
async def search(data: dict[str, str], ctx: Context) -> str:
    await asyncio.sleep(0.5)
    return f"results for {data['text']!r}"


@mesh.task(rate_limits=[RateLimit("mails", limit=20, per="second")])  # a fifth of it, 4, may leave at once
async def mail(data: dict[str, str], ctx: Context) -> None: ...


worker = mesh.worker("flow", slots=2, workflows=[invoice, search, mail])


async def told(ref: RunRef[str]) -> str:
    try:
        return await ref.result()
    except RunCancelled as error:
        return f"cancelled: {error}"


async def main() -> None:
    async with mesh:
        tenants = ["big"] * 12 + ["small"] * 3
        runs = [asyncio.ensure_future(invoice.run({"tenant": tenant})) for tenant in tenants]
        print("served:", *[await each for each in asyncio.as_completed(runs)])

        for ref in [await search.start({"user": "ada", "text": text}) for text in ("n", "na", "nat")]:
            print("search:", await told(ref))

        begun = time.monotonic()
        await mail.run_many([{"to": "ada"}] * 14)
        print(f"14 mails took {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
