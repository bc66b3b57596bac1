//! `selvedge traffic`: weights of traffic rules on a running server.

use super::purge::{Endpoint, Error, ask, target_of};
use super::{Exit, say};
use crate::route::traffic::{GroupState, RuleState};
use crate::types::Secret;
use clap::{Args, Subcommand, ValueHint};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks at the counts of a group that traffic is shifted to.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows and changes weights.
#[derive(Debug, Args)]
pub(super) struct Traffic {
    #[command(subcommand)]
    what: What,
    /// The admin listener, HOST:PORT or unix:PATH [default: that of --config, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", global = true)]
    admin: Option<Endpoint>,
    /// The server's configuration file, for the admin listener's address and token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true)]
    config: Option<PathBuf>,
    /// The environment variable that holds the admin token [default: the token of --config]
    #[arg(long, value_name = "NAME", global = true)]
    token_env: Option<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the rules that forward, with weights and counts
    Show {
        /// Of this site only
        site: Option<String>,
    },
    /// Set weights; groups that are not named keep theirs
    Set {
        /// The site
        site: String,
        /// The rule
        rule: String,
        /// GROUP=WEIGHT
        #[arg(required = true, value_name = "GROUP=WEIGHT", value_parser = weight)]
        weights: Vec<(String, u32)>,
    },
    /// Move all requests to one group step by step, and back at once if it fails
    Shift(Shift),
}

#[derive(Debug, Args)]
struct Shift {
    /// The site
    site: String,
    /// The rule
    rule: String,
    /// The group that gets everything in the end
    #[arg(long, value_name = "GROUP")]
    to: String,
    /// In how many steps
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    steps: u32,
    /// How long each step is watched before the next
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Percentage of the group's requests in one step that may fail
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    max_errors: f64,
    /// Fewer requests than this decide nothing
    #[arg(long, value_name = "N", default_value_t = 20)]
    min_requests: u64,
}

#[derive(Deserialize)]
struct All {
    rules: Vec<RuleState>,
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let parsed = text.rsplit_once('=').and_then(|(name, weight)| Some((name.to_owned(), weight.parse().ok()?)));
    parsed.filter(|(name, _)| !name.is_empty()).ok_or_else(|| "write it as in new=25".to_owned())
}

/// Runs the command. `env` looks the token's variable up.
pub(super) fn run(
    args: &Traffic,
    env: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let Traffic { what, admin, config, token_env } = args;
    let done = target_of(admin.as_ref(), config.as_ref(), token_env.as_ref(), env).and_then(|(endpoint, token)| {
        let server = Server { endpoint, token };
        match what {
            What::Show { site } => server.show(site.as_deref(), out),
            What::Set { site, rule, weights } => {
                let state = server.set(site, rule, weights)?;
                print(&state, out);
                Ok(Exit::Ok)
            }
            What::Shift(shift) => server.shift(shift, out, err),
        }
    });
    done.unwrap_or_else(|error| {
        say(err, &format_args!("error: {error}\n"));
        error.exit()
    })
}

fn print(state: &RuleState, out: &mut dyn Write) {
    let RuleState { site, rule, groups } = state;
    let total: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    say(out, &format_args!("{site} {rule}\n"));
    for GroupState { name, origin, weight, answered, failed } in groups {
        let share = if total == 0 { 0.0 } else { 100.0 * f64::from(*weight) / total as f64 };
        say(
            out,
            &format_args!(
                "  {name:<16} weight {weight:>7} ({share:5.1} %)  answered {answered}, failed {failed}  origin {origin}\n"
            ),
        );
    }
}

/// A running server's admin listener.
struct Server {
    endpoint: Endpoint,
    token: Option<Secret>,
}

impl Server {
    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<T, Error> {
        let answer = ask(&self.endpoint, self.token.as_ref(), method, path, body)?;
        serde_json::from_slice(&answer).map_err(|error| Error::Transport(self.endpoint.clone(), error.to_string()))
    }

    fn show(&self, site: Option<&str>, out: &mut dyn Write) -> Result<Exit, Error> {
        let All { rules } = self.ask(Method::GET, "/traffic", None)?;
        let shown: Vec<_> = rules.iter().filter(|rule| site.is_none_or(|site| rule.site == site)).collect();
        if shown.is_empty() {
            say(out, &"no rule forwards\n");
        }
        shown.iter().for_each(|state| print(state, out));
        Ok(Exit::Ok)
    }

    fn get(&self, site: &str, rule: &str) -> Result<RuleState, Error> {
        self.ask(Method::GET, &path(site, rule), None)
    }

    fn set(&self, site: &str, rule: &str, weights: &[(String, u32)]) -> Result<RuleState, Error> {
        let weights: serde_json::Map<String, serde_json::Value> =
            weights.iter().map(|(name, weight)| (name.clone(), (*weight).into())).collect();
        self.ask(Method::PUT, &path(site, rule), Some(serde_json::json!({ "weights": weights })))
    }

    /// Gives the group its share in equal steps, the others theirs in proportion. What it was before is put back as soon
    /// as too many of the group's requests of a step have failed.
    fn shift(&self, shift: &Shift, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
        let Shift { site, rule, to, steps, every, max_errors, min_requests } = shift;
        let before = self.get(site, rule)?;
        if !before.groups.iter().any(|group| group.name == *to) {
            let names: Vec<&str> = before.groups.iter().map(|group| &*group.name).collect();
            say(err, &format_args!("error: the rule has no group `{to}`; it has {}\n", names.join(", ")));
            return Ok(Exit::Usage);
        }
        for step in 1..=*steps {
            let weights = weights_at(&before, to, step, *steps);
            let started = counts(&self.set(site, rule, &weights)?, to);
            say(out, &format_args!("step {step} of {steps}: {to} gets {:.0} %\n", share(&weights, to)));
            let end = Instant::now() + *every;
            loop {
                let (answered, failed) = since(started, counts(&self.get(site, rule)?, to));
                let total = answered + failed;
                if total >= *min_requests && 100.0 * failed as f64 > max_errors * total as f64 {
                    let back: Vec<_> = before.groups.iter().map(|group| (group.name.clone(), group.weight)).collect();
                    self.set(site, rule, &back)?;
                    say(
                        err,
                        &format_args!("rolled back: {failed} of {total} requests to `{to}` failed in step {step}\n"),
                    );
                    return Ok(Exit::Failed);
                }
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(LOOK_EVERY));
            }
        }
        say(out, &format_args!("done: {to} gets everything\n"));
        Ok(Exit::Ok)
    }
}

fn path(site: &str, rule: &str) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("/traffic/{}/{}", encoded(site), encoded(rule))
}

/// The weights of a step: `to` has its share of the way to everything, of 1000 in all.
fn weights_at(before: &RuleState, to: &str, step: u32, steps: u32) -> Vec<(String, u32)> {
    const WHOLE: f64 = 1000.0;
    let total = before.groups.iter().map(|group| f64::from(group.weight)).sum::<f64>().max(1.0);
    let own = before.groups.iter().find(|group| group.name == to).map_or(0.0, |group| f64::from(group.weight) / total);
    let next = own + (1.0 - own) * f64::from(step) / f64::from(steps);
    let others = (1.0 - own).max(f64::EPSILON);
    let weight = |group: &GroupState| {
        let share = match group.name == to {
            true => next,
            false => f64::from(group.weight) / total / others * (1.0 - next),
        };
        // From 0 to 1000.
        (share * WHOLE).round().clamp(0.0, WHOLE) as u32
    };
    before.groups.iter().map(|group| (group.name.clone(), weight(group))).collect()
}

fn share(weights: &[(String, u32)], to: &str) -> f64 {
    let total: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let own = weights.iter().find(|(name, _)| name == to).map_or(0.0, |(_, weight)| f64::from(*weight));
    if total == 0.0 { 0.0 } else { 100.0 * own / total }
}

fn counts(state: &RuleState, to: &str) -> (u64, u64) {
    state.groups.iter().find(|group| group.name == to).map_or((0, 0), |group| (group.answered, group.failed))
}

fn since(start: (u64, u64), now: (u64, u64)) -> (u64, u64) {
    (now.0.saturating_sub(start.0), now.1.saturating_sub(start.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(weights: &[u32]) -> RuleState {
        let group = |(n, weight): (usize, &u32)| GroupState {
            name: format!("v{n}"),
            origin: "o".into(),
            weight: *weight,
            answered: 0,
            failed: 0,
        };
        RuleState { site: "s".into(), rule: "r".into(), groups: weights.iter().enumerate().map(group).collect() }
    }

    #[test]
    fn a_shift_goes_in_equal_steps_and_keeps_the_others_proportion() {
        for (weights, step, steps, expected) in [
            (&[100, 0][..], 1, 5, &[800, 200][..]),
            (&[100, 0], 5, 5, &[0, 1000]),
            (&[60, 20, 20], 1, 2, &[300, 600, 100]),
            (&[50, 50], 1, 1, &[0, 1000]),
            (&[0, 7], 1, 4, &[0, 1000]),
        ] {
            let next: Vec<u32> = weights_at(&state(weights), "v1", step, steps).into_iter().map(|(_, w)| w).collect();
            assert_eq!(next, expected, "{weights:?} {step}/{steps}");
        }
    }

    #[test]
    fn weights_are_read_with_their_names() {
        assert_eq!(weight("new=25"), Ok(("new".to_owned(), 25)));
        assert!(["new", "=5", "new=-1", "new=x"].iter().all(|text| weight(text).is_err()));
        assert_eq!(path("*", "rule-1"), "/traffic/%2A/rule%2D1");
    }
}
