"""The wire contract: records, frames, subjects, ids. Pure; `docs/protocol.md` describes it for other languages."""
