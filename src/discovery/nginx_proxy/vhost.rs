//! What `vhost.d` files hold: nginx's own configuration, of which the common directives are translated and every other
//! one is named.

use crate::types::variables::{Piece, pieces};
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

mod tokens;

use tokens::Statement;

/// The directives of one file, or what variables say in their stead. What is not given is as it is elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `client_max_body_size`: bytes; 0 is no limit.
    pub max_body: Option<u64>,
    /// `proxy_connect_timeout`.
    pub connect_timeout: Option<Duration>,
    /// `proxy_read_timeout`.
    pub read_timeout: Option<Duration>,
    /// `proxy_send_timeout`.
    pub send_timeout: Option<Duration>,
    /// `add_header`: name and value, in which `$host`, `$client_ip` and `$request_id` are variables.
    pub response_add: Vec<(String, String)>,
    /// Fields of the response in place of the container's.
    pub response_set: Vec<(String, String)>,
    /// `proxy_hide_header`.
    pub response_remove: Vec<String>,
    /// `proxy_set_header`: name and value.
    pub request_set: Vec<(String, String)>,
    /// `proxy_set_header` with an empty value.
    pub request_remove: Vec<String>,
    /// `return`.
    pub answer: Option<Answer>,
    /// `rewrite`, in order.
    pub rewrites: Vec<Rewrite>,
    /// `allow` and `deny`: the first that matches decides.
    pub access: Vec<AccessRule>,
    /// `gzip`.
    pub gzip: Option<bool>,
    /// `gzip_types`.
    pub gzip_types: Vec<String>,
    /// `gzip_min_length`, bytes.
    pub gzip_min_length: Option<u64>,
}

/// `return`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status and a text.
    Text(u16, String),
    /// A redirect; the address may hold `$host`, `$request_uri`, `$uri`, `$args` and `$scheme`.
    Redirect(u16, String),
    /// 444: the connection is closed without an answer.
    Close,
}

/// `rewrite REGEX REPLACEMENT FLAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Matched against the path.
    pub regex: String,
    /// With `$1` to `$9`.
    pub replacement: String,
    /// 301 or 302 for a redirect; `None`: the container gets the new path.
    pub redirect: Option<u16>,
}

/// `allow` or `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// `allow`.
    pub allow: bool,
    /// The addresses; `None`: all.
    pub net: Option<IpNet>,
}

/// Directives that have nothing to do here: bodies are streamed, connections and protocols are looked after.
const NEEDLESS: [&str; 16] = [
    "proxy_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_busy_buffers_size",
    "proxy_request_buffering",
    "proxy_http_version",
    "proxy_next_upstream",
    "client_body_buffer_size",
    "large_client_header_buffers",
    "keepalive_timeout",
    "sendfile",
    "tcp_nodelay",
    "tcp_nopush",
    "gzip_vary",
    "gzip_proxied",
    "gzip_comp_level",
];

/// Translates one file. The second value names each line that is not translated, with its number.
pub fn parse(text: &str) -> (Directives, Vec<String>) {
    let mut out = Directives::default();
    let mut untranslated = Vec::new();
    match tokens::statements(text) {
        Ok(statements) => {
            for statement in &statements {
                if let Err(reason) = apply(statement, &mut out) {
                    untranslated.push(format!("line {}: `{}` {reason}", statement.line, statement.words.join(" ")));
                }
            }
        }
        Err(error) => untranslated.push(error),
    }
    (out, untranslated)
}

fn apply(statement: &Statement, out: &mut Directives) -> Result<(), String> {
    if statement.block {
        return Err("{ … }: blocks are not translated".to_owned());
    }
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["client_max_body_size", value] => out.max_body = Some(size(value)?),
        ["proxy_connect_timeout", value] => out.connect_timeout = Some(duration(value)?),
        ["proxy_read_timeout", value] => out.read_timeout = Some(duration(value)?),
        ["proxy_send_timeout", value] => out.send_timeout = Some(duration(value)?),
        ["add_header", name, value] | ["add_header", name, value, "always"] => {
            out.response_add.push((field_name(name)?, field_value(value)?));
        }
        ["proxy_set_header", name, ""] => out.request_remove.push(field_name(name)?),
        ["proxy_set_header", name, value] => out.request_set.push((field_name(name)?, field_value(value)?)),
        ["proxy_hide_header", name] => out.response_remove.push(field_name(name)?),
        ["return", rest @ ..] => out.answer = Some(answer(rest)?),
        ["rewrite", regex, replacement, flag @ ..] => out.rewrites.push(rewrite(regex, replacement, flag)?),
        ["allow", net] => out.access.push(AccessRule { allow: true, net: network(net)? }),
        ["deny", net] => out.access.push(AccessRule { allow: false, net: network(net)? }),
        ["gzip", "on"] => out.gzip = Some(true),
        ["gzip", "off"] => out.gzip = Some(false),
        ["gzip_types", types @ ..] => out.gzip_types = types.iter().map(|t| (*t).to_owned()).collect(),
        ["gzip_min_length", value] => out.gzip_min_length = Some(size(value)?),
        [name, ..] if NEEDLESS.contains(name) => {}
        _ => return Err("is not translated".to_owned()),
    }
    Ok(())
}

/// nginx's sizes: bytes, or with `k`, `m` or `g`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let error = || format!("has `{text}`, not a size");
    let (digits, shift) = match text.bytes().last().map(|b| b.to_ascii_lowercase()) {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// nginx's times: seconds, or numbers with `ms`, `s`, `m`, `h`, `d` after each other.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("has `{text}`, not a time");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| error())
}

fn field_name(text: &str) -> Result<String, String> {
    match http::HeaderName::try_from(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(format!("has `{text}`, not a field's name")),
    }
}

/// The value with nginx's variables as our templates write them.
fn field_value(text: &str) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces(text) {
        let name = match piece {
            Piece::Text(text) => {
                out.push_str(text);
                continue;
            }
            Piece::Dollar => "$",
            Piece::Variable(name) | Piece::Braced(name) => name,
        };
        out.push_str(match name {
            "host" | "http_host" => "$host",
            "remote_addr" => "$client_ip",
            "request_id" => "$request_id",
            other => return Err(format!("has the variable `${other}`, which there is not here")),
        });
    }
    Ok(out)
}

fn answer(words: &[&str]) -> Result<Answer, String> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (200..=599).contains(status));
    match words {
        ["444"] => Ok(Answer::Close),
        [code] => match status(code) {
            Some(status) => Ok(Answer::Text(status, String::new())),
            None if code.starts_with("http") || code.starts_with("$scheme") => {
                Ok(Answer::Redirect(302, address(code)?))
            }
            None => Err("is not translated".to_owned()),
        },
        [code, text] => match status(code) {
            Some(status @ (301 | 302 | 303 | 307 | 308)) => Ok(Answer::Redirect(status, address(text)?)),
            Some(status) if !text.contains('$') => Ok(Answer::Text(status, (*text).to_owned())),
            _ => Err("is not translated".to_owned()),
        },
        _ => Err("is not translated".to_owned()),
    }
}

/// Variables that an address may hold.
const ADDRESS_VARIABLES: [&str; 8] =
    ["host", "http_host", "request_uri", "uri", "args", "is_args", "query_string", "scheme"];

fn address(text: &str) -> Result<String, String> {
    for variable in text.split('$').skip(1) {
        let name: String = variable.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if !ADDRESS_VARIABLES.contains(&name.as_str()) {
            return Err(format!("has the variable `${name}`, which there is not here"));
        }
    }
    Ok(text.to_owned())
}

fn rewrite(regex: &str, replacement: &str, flag: &[&str]) -> Result<Rewrite, String> {
    if let Err(error) = regex::Regex::new(regex) {
        let text = error.to_string();
        return Err(format!("has an expression that cannot be used: {}", text.lines().last().unwrap_or_default()));
    }
    if replacement.split('$').skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Err("has a variable that there is not here".to_owned());
    }
    let absolute = replacement.starts_with("http://") || replacement.starts_with("https://");
    let redirect = match flag {
        ["permanent"] => Some(301),
        ["redirect"] => Some(302),
        [] | ["last" | "break"] => absolute.then_some(302),
        _ => return Err("has a flag that there is not here".to_owned()),
    };
    Ok(Rewrite { regex: regex.to_owned(), replacement: replacement.to_owned(), redirect })
}

fn network(text: &str) -> Result<Option<IpNet>, String> {
    if text == "all" {
        return Ok(None);
    }
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(Some).ok_or_else(|| format!("has `{text}`, not an address or a network"))
}
