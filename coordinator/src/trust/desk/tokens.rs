//! Tokens: made, told once, taken back.

use std::time::Duration;

use blackstart_proto::machine::hex;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Desk, DeskError, TOKENS};
use crate::inventory::{ClusterName, NodeName};
use crate::trust::book::{Token, secret_digest};

/// More tokens than anybody needs at once.
const MOST_TOKENS: usize = 500;
/// A token that is over is shown for so long, seconds.
const SHOWN_FOR: u64 = 7 * 24 * 3600;
/// A token is for no more nodes.
pub(crate) const MOST_NODES: u32 = 10_000;
/// No token lasts longer.
pub(crate) const LONGEST_TTL: Duration = Duration::from_hours(30 * 24);

/// What a token is to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewToken {
    pub(crate) ttl: Duration,
    pub(crate) node: Option<NodeName>,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) count: u32,
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl Desk {
    /// Makes a token; its text is told this once.
    pub(crate) fn create_token(&self, new: NewToken) -> Result<(String, Token), DeskError> {
        self.authority()?;
        let now = self.now();
        if new.ttl.as_secs() == 0 || new.ttl > LONGEST_TTL {
            return Err(DeskError::Invalid("a token lasts from 1 s to 30 days".to_owned()));
        }
        let most = if new.node.is_some() { 1 } else { MOST_NODES };
        if !(1..=most).contains(&new.count) {
            return Err(DeskError::Invalid(format!(
                "a token that is {} is for 1 to {most} of them",
                if new.node.is_some() {
                    "for a named node"
                } else {
                    "for any nodes"
                }
            )));
        }
        let (id, secret) = (random(4)?, random(16)?);
        let token = Token {
            digest: secret_digest(&secret),
            id: id.clone(),
            made_at: now,
            ends_at: now.saturating_add(new.ttl.as_secs()),
            by: new.by,
            reason: new.reason,
            node: new.node,
            cluster: new.cluster,
            count: new.count,
            left: new.count,
            revoked_by: None,
        };
        let mut books = self.books();
        let mut tokens = books.tokens.clone();
        tokens.retain(|token| now < token.ends_at.saturating_add(SHOWN_FOR));
        if tokens.len() >= MOST_TOKENS {
            tokens.retain(|token| token.over(now).is_none());
        }
        if tokens.len() >= MOST_TOKENS {
            return Err(DeskError::Invalid(format!(
                "there are {MOST_TOKENS} tokens already; take some back: blackstart token revoke ID"
            )));
        }
        tokens.push(token.clone());
        self.keep(TOKENS, &tokens)?;
        books.tokens = tokens;
        Ok((format!("{id}.{secret}"), token))
    }

    /// All that are kept.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.books().tokens.clone()
    }

    /// The one with this id.
    pub(crate) fn token(&self, id: &str) -> Result<Token, DeskError> {
        let books = self.books();
        let token = books.tokens.iter().find(|token| token.id == id);
        token
            .cloned()
            .ok_or_else(|| DeskError::NotFound(format!("there is no token {id:?}")))
    }

    /// Takes one back.
    pub(crate) fn revoke_token(&self, id: &str, by: &str) -> Result<(), DeskError> {
        let mut books = self.books();
        let mut tokens = books.tokens.clone();
        let token = tokens.iter_mut().find(|token| token.id == id);
        let token = token.ok_or_else(|| DeskError::NotFound(format!("there is no token {id:?}")))?;
        if token.revoked_by.is_none() {
            token.revoked_by = Some(by.to_owned());
            self.keep(TOKENS, &tokens)?;
            books.tokens = tokens;
        }
        Ok(())
    }
}

/// `bytes` random ones, hexadecimal.
fn random(bytes: usize) -> Result<String, DeskError> {
    let mut random = vec![0; bytes];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| DeskError::Invalid("the system gives no random numbers".to_owned()))?;
    Ok(hex(&random))
}
