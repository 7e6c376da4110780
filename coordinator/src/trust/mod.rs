//! Who is let in, and what they may do: enrolment, revocation, rights.
//!
//! ```text
//!  operator ── token create ─► desk ─► book: tokens        (secrets only as digests)
//!  node ────── join, renew ──► desk ─► book: may it? ─► authority signs
//!  operator ── revoke ───────► desk ─► gate: connections are cut, calls refused
//!  every call ───────────────► gate: revoked?   rights: may this operator?
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`book`] | tokens, issued certificates and revocations, and who may join and renew. Pure |
//! | [`desk`] | does it: store, authority, gate. A file each for tokens, joining, revoking, and operators |
//! | `flood` | how many refusals are told. Pure |
//! | [`gate`] | what is revoked, and every connection that stands |
//! | [`oidc`] | operators with a token of an identity provider |
//! | [`rights`] | which right each call needs, and who has it. Pure |
//!
//! All of it is measured by the later of clock and floor ([`blackstart_proto::clock_floor`]): after a power loss clocks lie.

pub mod book;
pub mod desk;
mod flood;
pub mod gate;
pub mod oidc;
pub mod rights;
