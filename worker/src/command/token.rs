//! `quicsand token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use quicsand::{
    ids::TokenId,
    net::{self, OperatorError},
    wire::{
        Role,
        members::{TokenInfo, TokenRequest, TokenState},
    },
};
use serde_json::json;

use super::{Failed, operator::Access, say, text::printable};
use crate::sandbox::duration;

#[derive(Debug, Args)]
#[command(after_long_help = "\
A token lets its bearer join in one role. The scheduler makes one of each role at its first start, which are good until they are revoked;
others can be made with an end, or for one use. Whoever has joined has a certificate of its own: revoking a token does not end it.

Examples:
    quicsand token create --role worker --expires 1h
    quicsand token create --role client --once --note alice > alice.token
    quicsand token list
    quicsand token revoke 0123456789abcdef")]
pub(super) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token, and print it alone on standard output
    Create(Create),
    /// List the cluster's tokens, without their secrets
    List(List),
    /// Have tokens not accepted any more; whoever joined with one stays
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// What its bearer may be
    #[arg(long, value_enum)]
    role: RoleName,
    /// How long it is good, like 30m or 12h; by default for ever
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Make it good for one use: for one worker, or one client
    #[arg(long)]
    once: bool,
    /// Whom it is for, to be shown by `token list`
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct List {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Their ids, as `token list` shows them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TokenId>,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Runs calls
    Worker,
    /// Submits calls
    Client,
    /// Looks and manages
    Operator,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failed> {
        match self.action {
            Action::Create(create) => create.run(),
            Action::List(list) => list.run(),
            Action::Revoke(revoke) => revoke.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let role = match self.role {
            RoleName::Worker => Role::Worker,
            RoleName::Client => Role::Client,
            RoleName::Operator => Role::Operator,
        };
        let lifetime_s = self.expires.map(|expires| expires.as_secs().max(1));
        let request = TokenRequest { role, lifetime_s, once: self.once, note: self.note };
        let text = operator.create_token(request)?;
        let token: net::Token = text.parse().map_err(|_| OperatorError::Answer)?;
        let address = operator.address();
        let uses = if self.once { "for one use" } else { "for any number of uses" };
        let time = lifetime_s.map_or_else(|| "until it is revoked".to_owned(), |s| format!("for {}", about(s)));
        let use_it = match role {
            Role::Worker => format!("start a worker with\n    QUICSAND_TOKEN=TOKEN quicsand worker {address}"),
            Role::Client => format!("run a program with\n    export QUICSAND_SCHEDULER={address} QUICSAND_TOKEN=TOKEN"),
            Role::Operator => format!("look on with\n    QUICSAND_TOKEN=TOKEN quicsand status --scheduler {address}"),
        };
        let id = token.id();
        let hint = format!("token {id}, good {uses} and {time}; {use_it}\nend it with\n    quicsand token revoke {id}\n");
        say(&mut std::io::stderr(), &hint);
        say(&mut std::io::stdout(), &format!("{text}\n"));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let tokens = operator.tokens()?;
        let text = if self.json {
            let tokens: Vec<_> = tokens.iter().map(as_json).collect();
            format!("{}\n", json!(tokens))
        } else {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            table(&tokens, now_s)
        };
        say(&mut std::io::stdout(), &text);
        Ok(())
    }
}

impl Revoke {
    fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let unknown = operator.revoke_tokens(self.ids)?;
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<_> = unknown.iter().map(TokenId::to_string).collect();
        Err(Failed::NoSuchToken { ids: unknown.join(", ") })
    }
}

fn as_json(token: &TokenInfo) -> serde_json::Value {
    json!({
        "id": token.id.to_string(),
        "role": role(token),
        "created_s": token.created_s,
        "expires_s": token.expires_s,
        "once": token.once,
        "used": token.used,
        "uses_left": uses_left(token),
        "state": state(token),
        "note": token.note,
    })
}

fn table(tokens: &[TokenInfo], now_s: u64) -> String {
    let mut text =
        format!("{:16}  {:8}  {:8}  {:8}  {:9}  {:7}  NOTE\n", "ID", "ROLE", "CREATED", "EXPIRES", "USES LEFT", "STATE");
    for token in tokens {
        let created = format!("{} ago", about(now_s.saturating_sub(token.created_s)));
        let expires = match token.expires_s {
            None => "never".to_owned(),
            Some(at_s) if at_s > now_s => format!("in {}", about(at_s - now_s)),
            Some(at_s) => format!("{} ago", about(now_s - at_s)),
        };
        let uses = uses_left(token).map_or_else(|| "any".to_owned(), |left| left.to_string());
        let (id, role, state) = (token.id.to_string(), role(token), state(token));
        let line = format!("{id}  {role:8}  {created:8}  {expires:8}  {uses:9}  {state:7}  {}", printable(&token.note));
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// `None` for any number.
fn uses_left(token: &TokenInfo) -> Option<u64> {
    match (token.state, token.once) {
        (TokenState::Good, false) => None,
        (TokenState::Good, true) => Some(1),
        _ => Some(0),
    }
}

fn role(token: &TokenInfo) -> &'static str {
    match token.role {
        Role::Client => "client",
        Role::Worker => "worker",
        Role::Operator => "operator",
    }
}

fn state(token: &TokenInfo) -> &'static str {
    match token.state {
        TokenState::Good => "good",
        TokenState::Expired => "expired",
        TokenState::Used => "used",
        TokenState::Revoked => "revoked",
    }
}

/// A time for people, in the largest unit of which there are two.
fn about(s: u64) -> String {
    match s {
        0..120 => format!("{s}s"),
        120..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(once: bool, expires_s: Option<u64>, state: TokenState) -> TokenInfo {
        let id = "0123456789abcdef".parse().expect("an id");
        TokenInfo { id, role: Role::Worker, created_s: 1000, expires_s, once, used: 0, state, note: "for Ada".to_owned() }
    }

    #[test]
    fn tables_say_what_is_left() {
        let check = |token: TokenInfo, line: &str| {
            let table = table(&[token], 1100);
            assert_eq!(table.lines().nth(1), Some(line), "{table}");
        };
        let good = token(false, None, TokenState::Good);
        check(good, "0123456789abcdef  worker    100s ago  never     any        good     for Ada");
        let once = token(true, Some(4700), TokenState::Good);
        check(once, "0123456789abcdef  worker    100s ago  in 60m    1          good     for Ada");
        let expired = token(true, Some(1090), TokenState::Expired);
        check(expired, "0123456789abcdef  worker    100s ago  10s ago   0          expired  for Ada");
    }

    #[test]
    fn json_has_no_secret() {
        let json = as_json(&token(true, None, TokenState::Used));
        let expected = json!({
            "id": "0123456789abcdef", "role": "worker", "created_s": 1000, "expires_s": null, "once": true, "used": 0,
            "uses_left": 0, "state": "used", "note": "for Ada",
        });
        assert_eq!(json, expected);
    }
}
