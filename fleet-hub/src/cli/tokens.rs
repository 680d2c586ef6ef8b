//! `fleet-hub token …`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::Role;
use fleetloop_protocol::api::tokens::{
    ApiToken, LastAdmin, MadeApiToken, NewApiToken, RevokeApiToken, RotateApiToken, TokenState,
};

use super::client::Client;
use super::human;
use super::resolve;
use super::table::Table;
use crate::clock::Clock;
use crate::durable::{self, Access};
use crate::store::tokens::role_name;

const DAY_S: u64 = 24 * 3600;

/// What can be done with tokens.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists all tokens: whose, for what, until when, and when each was last used.
    List,
    /// Makes a token for a person or a program; it is shown once.
    Add {
        /// Whose it is; the audit log names it.
        name: String,
        /// What it allows: admin (everything), annotator (see samples and label), worker (take jobs).
        #[arg(long, value_parser = role)]
        role: Role,
        /// After how many days it ends; without it, it does not end.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
        expires: Option<u64>,
        /// Where the new token goes.
        #[command(flatten)]
        write: Write,
    },
    /// Makes a token that takes another's place, with its name and role; the old one works on for a
    /// while. The access file of the hub's own data directory that holds the old one is written anew.
    Rotate {
        /// The old token: its id, the beginning of it, or its name.
        token: String,
        /// How many hours the old token works on.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=720))]
        overlap_hours: u64,
        /// Where the new token goes.
        #[command(flatten)]
        write: Write,
    },
    /// Ends a token, and the page's logins with it.
    Revoke {
        /// Its id, the beginning of it, or its name.
        token: String,
        /// Revokes it even if no other admin token is left that does not end by itself.
        #[arg(long)]
        lock_out_all_admins: bool,
    },
}

/// Where a new token goes.
#[derive(Debug, Clone, clap::Args)]
pub struct Write {
    /// Writes an access file with the token, readable by you only, instead of showing the token.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn role(text: &str) -> Result<Role, String> {
    [Role::Admin, Role::Annotator, Role::Worker]
        .into_iter()
        .find(|role| role_name(*role) == text)
        .ok_or_else(|| "a role is admin, annotator or worker".to_owned())
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused, or the access file cannot be written.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let all: Vec<ApiToken> = client.get("list tokens", "/tokens").await?;
            output.print(&all, |all| list(all, Clock::system().now().0))
        }
        Command::Add { name, role, expires, write } => {
            let wanted = NewApiToken { name, role, valid_s: expires.map(|days| days * DAY_S) };
            let made: MadeApiToken = client.post("make a token", "/tokens", &wanted).await?;
            show(client, output, &made, write.write.as_deref())
        }
        Command::Rotate { token, overlap_hours, write } => {
            let token = resolve::token(client, &token).await?;
            let request = RotateApiToken { overlap_s: overlap_hours * 3600 };
            let path = format!("/tokens/{token}/rotate");
            let operation = format!("rotate token {token}");
            let made: MadeApiToken = client.post(&operation, &path, &request).await?;
            show(client, output, &made, write.write.as_deref())
        }
        Command::Revoke { token, lock_out_all_admins } => {
            let token = resolve::token(client, &token).await?;
            let last_admin = if lock_out_all_admins { LastAdmin::LockOut } else { LastAdmin::Keep };
            let path = format!("/tokens/{token}/revoke");
            let operation = format!("revoke token {token}");
            let revoked: ApiToken =
                client.post(&operation, &path, &RevokeApiToken { last_admin }).await?;
            output.print(&revoked, |token| format!("revoked {} ({})\n", token.id, token.name))
        }
    }
}

/// Shows a new token once, or puts it into a file and shows only what is known of it.
fn show(
    client: &Client,
    output: Output,
    made: &MadeApiToken,
    write: Option<&Path>,
) -> anyhow::Result<()> {
    let Some(path) = write else {
        return output
            .print(made, |made| format!("{}\n\nShown once. {}", made.token, about(&made.about)));
    };
    let text = toml::to_string(&client.access_with(&made.token))?;
    durable::write(path, text.as_bytes(), Access::Owner).with_context(|| {
        // The token is nowhere then: the next step is to end it.
        format!(
            "cannot write access file {}; 'fleet-hub token revoke {}' ends the token that was made",
            path.display(),
            made.about.id
        )
    })?;
    output.print(&made.about, |token| format!("{} is written. {}", path.display(), about(token)))
}

fn about(token: &ApiToken) -> String {
    let end = token.expires_at_ms.map_or("It does not end by itself.".to_owned(), |end| {
        format!("It ends at {} UTC.", human::time(end))
    });
    format!("It is {} of {}, {}. {end}\n", token.id, token.name, role_name(token.role))
}

fn list(tokens: &[ApiToken], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "token",
        "name",
        "role",
        "state",
        "ends",
        "last used",
        "made by",
        "replaced by",
    ]);
    for token in tokens {
        table.row([
            token.id.to_string(),
            token.name.clone(),
            role_name(token.role).to_owned(),
            state(token.state).to_owned(),
            token.expires_at_ms.map_or("-".into(), human::time),
            token.last_used_at_ms.map_or("never".into(), |at| human::ago(at, now_ms)),
            token.created_by.clone(),
            token.replaced_by.as_ref().map_or("-".into(), ToString::to_string),
        ]);
    }
    table.render("no tokens")
}

fn state(state: TokenState) -> &'static str {
    match state {
        TokenState::Live => "live",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_who_may_do_what_until_when_and_when_it_was_last_used() {
        let token = ApiToken {
            id: "tok-abcdefgh".parse().unwrap(),
            name: "line 3".into(),
            role: Role::Annotator,
            state: TokenState::Live,
            created_by: "init".into(),
            created_at_ms: 0,
            expires_at_ms: Some(86_400_000),
            revoked_at_ms: None,
            last_used_at_ms: Some(10_000),
            replaced_by: None,
        };
        let text = list(&[token], 40_000);
        for part in ["tok-abcdefgh", "line 3", "annotator", "live", "1970-01-02", "30 s ago"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
