//! `selvedge dns`: why a running server sends a client where it does.

use super::purge::{Endpoint, ask, target_of};
use super::{Exit, say};
use clap::{Args, Subcommand, ValueHint};
use hyper::Method;
use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Dns {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Explain which node a client is sent to, and why
    ///
    /// Asks the admin listener of a running server: place of the client, each step of the policy with the nodes it left,
    /// distances, the nodes chosen, and the scope that resolvers may keep the answer for.
    #[command(after_help = "\
Examples:
  selvedge dns why www.example.com --subnet 203.0.113.0/24
  selvedge dns why www.example.com --subnet 2001:db8::/48 --config edge.toml --json")]
    Why(Why),
}

#[derive(Debug, Args)]
struct Why {
    /// The name that is asked for
    #[arg(value_name = "NAME")]
    name: String,
    /// The client's network, as its resolver would send it, or an address
    #[arg(long, value_name = "PREFIX")]
    subnet: String,
    /// Print what the server answered, as JSON
    #[arg(long)]
    json: bool,
    /// The admin listener, HOST:PORT or unix:PATH [default: that of --config, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<Endpoint>,
    /// The server's configuration file, for the admin listener's address and token
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The environment variable that holds the admin token [default: the token of --config]
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
}

/// Exit status 1 if the name is not steered.
pub(super) fn run(args: &Dns, env: &dyn Fn(&str) -> Option<String>, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let Dns { kind: Kind::Why(Why { name, subnet, json, admin, config, token_env }) } = args;
    if subnet.parse::<IpNet>().is_err() && subnet.parse::<std::net::IpAddr>().is_err() {
        say(err, &format_args!("error: {subnet:?} is no subnet; write it as in 203.0.113.0/24\n"));
        return Exit::Usage;
    }
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/dns/why?name={}&subnet={}", encode(name), encode(subnet));
    let target = target_of(admin.as_ref(), config.as_ref(), token_env.as_ref(), env);
    let answer = target.and_then(|(endpoint, token)| ask(&endpoint, token.as_ref(), Method::GET, &path, None));
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            say(err, &format_args!("error: {error}\n"));
            return error.exit();
        }
    };
    let Ok(why) = serde_json::from_slice::<Value>(&answer) else {
        say(err, &"error: this is no explanation\n");
        return Exit::Internal;
    };
    if *json {
        say(out, &String::from_utf8_lossy(&answer));
    } else {
        print(&why, out);
    }
    if why["error"].is_null() { Exit::Ok } else { Exit::Failed }
}

fn print(why: &Value, out: &mut dyn Write) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut line = |name: &str, value: String| say(out, &format_args!("{name:<11} {value}\n"));
    line("question", format!("{} from {}", text(&why["question"]["name"]), text(&why["question"]["subnet"])));
    if let Some(error) = why["error"].as_str() {
        return line("answer", error.to_owned());
    }
    line("zone", text(&why["zone"]));
    line("policy", text(&why["policy"]));
    line("place", format!("{} (all of {})", text(&why["place"]["text"]), text(&why["place"]["known_for"])));
    for step in why["steps"].as_array().into_iter().flatten() {
        let left = step["left"].as_array().map(|left| left.iter().map(text).collect::<Vec<_>>().join(" "));
        line("step", format!("{}{}", text(&step["rule"]), left.map(|left| format!(": {left}")).unwrap_or_default()));
    }
    let node = |node: &Value| {
        let mut parts = vec![text(&node["node"])];
        parts.extend(node["distance_km"].as_f64().map(|km| format!("{km:.0} km")));
        parts.push(format!("weight {}", node["weight"]));
        parts.extend((node["up"] == false).then(|| "down".to_owned()));
        parts.extend((node["drain"] == true).then(|| "draining".to_owned()));
        parts.extend(node["addresses"].as_array().into_iter().flatten().map(text));
        parts.join(", ")
    };
    for (name, nodes) in [("candidate", &why["candidates"]), ("chosen", &why["chosen"])] {
        nodes.as_array().into_iter().flatten().for_each(|entry| line(name, node(entry)));
    }
    line("scope", format!("/{}", why["scope"]));
    line("ttl", format!("{} s", why["ttl"]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_printed_line_by_line() {
        let why = serde_json::json!({
            "question": {"name": "www.example.com", "subnet": "192.0.2.0/24"}, "zone": "example.com", "policy": "web",
            "place": {"text": "DE", "known_for": "192.0.2.0/23"},
            "steps": [{"rule": "up and not draining", "left": ["a", "b"]}, {"rule": "all of them"}],
            "candidates": [{"node": "a", "distance_km": 12.0, "weight": 1, "up": false, "drain": true, "addresses": ["192.0.2.1"]}],
            "chosen": [], "scope": 23, "ttl": 60,
        });
        let mut out = Vec::new();
        print(&why, &mut out);
        let text = String::from_utf8(out).unwrap();
        for part in [
            "question    www.example.com from 192.0.2.0/24",
            "place       DE (all of 192.0.2.0/23)",
            "step        up and not draining: a b",
            "candidate   a, 12 km, weight 1, down, draining, 192.0.2.1",
            "scope       /23",
            "ttl         60 s",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
