//! Files with one slip each: the text, its only problem with its place, and the remedy.

use super::{completed, found};

mod balance;
mod dns;
mod origins;
mod rules;
mod sites;

/// (file, `line:column: message`, remedy). What a whole file needs besides is appended to each.
pub(super) type Case = (&'static str, &'static str, &'static str);

#[test]
fn each_slip_is_named_with_its_place_and_remedy() {
    let files = [CASES, dns::CASES, origins::CASES, balance::CASES, rules::CASES, sites::CASES];
    for (file, message, remedy) in files.into_iter().flatten() {
        assert_eq!(found(&completed(file)), [format!("{message} | {remedy}")], "{file}");
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    (
        r#"[listen
http = ["127.0.0.1:80"]"#,
        "1:8: not TOML: unclosed table, expected `]`",
        "write `key = value`, one to a line, and tables as `[name]`",
    ),
    (
        r#"[cache.memory]
capacity = 256 MiB"#,
        "2:12: not TOML: string values must be quoted",
        r#"put a text, a size or a duration between double quotes, as in "256 MiB""#,
    ),
    (
        r#"[runtime]
threads = 1
threads = 2"#,
        "3:1: not TOML: duplicate key",
        "keep one of the two",
    ),
    (
        r#"[tls]
certificates = "C:\certs""#,
        "2:20: not TOML: missing escaped value",
        r#"write \\ for a backslash, or put the text between single quotes"#,
    ),
    (
        r#"[runtime]
threads ="#,
        "2:10: not TOML: a value is missing",
        "write a value after the `=`, or remove the line",
    ),
    (
        r#"[tls]
certificates = "certs"#,
        r#"2:22: not TOML: invalid basic string, expected `"`"#,
        "end the text with the quote it begins with, on the same line",
    ),
    (
        r#"[cache.memory]
capacty = "1 GiB""#,
        "2:1: unknown key `capacty` in [cache.memory]",
        "did you mean `capacity`?",
    ),
    (
        r#"[chache]
enabled = false"#,
        "1:2: unknown key `chache` at the top level",
        "did you mean `cache`?",
    ),
    (
        r#"[runtime]
workers = 4"#,
        "2:1: unknown key `workers` in [runtime]",
        "remove it; the keys known here are `threads`, `shutdown_grace`",
    ),
    (
        r#"[cache]
capacity = "1 GiB""#,
        "2:1: unknown key `capacity` in [cache]",
        "remove it; the keys known here are `enabled`, `memory`, `disk`, `max_object`, `slice_size`, `grace`",
    ),
    (
        r#"[runtime]
threads = "4""#,
        "2:11: `runtime.threads` is a string, expected a whole number",
        "write a number from 1 to 1024, without quotes",
    ),
    (
        r#"[runtime]
threads = 0"#,
        "2:11: `runtime.threads` is 0, out of range",
        "write a number from 1 to 1024, without quotes",
    ),
    (
        r#"[runtime]
shutdown_grace = 30"#,
        "2:18: `runtime.shutdown_grace` is an integer, expected a duration",
        r#"if seconds are meant, write "30s""#,
    ),
    (
        r#"[runtime]
shutdown_grace = "soon""#,
        r#"2:18: `runtime.shutdown_grace` is "soon", not a duration"#,
        r#"write a number with a unit, as in "500ms", "30s" or "2m""#,
    ),
    (
        r#"[runtime]
shutdown_grace = "900y""#,
        r#"2:18: `runtime.shutdown_grace` is "900y", out of range"#,
        r#"write at most "366days""#,
    ),
    (
        r#"[listen]
http = "127.0.0.1:80""#,
        "2:8: `listen.http` is a string, expected an array",
        r#"write `http = ["127.0.0.1:80"]`"#,
    ),
    (
        r#"[listen]
http = [80]"#,
        "2:9: `listen.http[0]` is an integer, expected a string",
        r#"put it in quotes: `"80"`"#,
    ),
    (
        r#"[cache]
enabled = "yes""#,
        "2:11: `cache.enabled` is a string, expected true or false",
        "write `enabled = true` or `enabled = false`, without quotes",
    ),
    (
        r#"cache = true"#,
        "1:9: `cache` is a boolean, expected a table",
        "write its keys below a line `[cache]`",
    ),
    (
        r#"[[listen]]
http = ["127.0.0.1:80"]"#,
        "1:1: `listen` is an array, expected a table",
        "write `[listen]`, once and with single brackets",
    ),
    (
        r#"[cache.memory]
capacity = "lots""#,
        r#"2:12: `cache.memory.capacity` is "lots", not a size"#,
        r#"write a number with a unit, as in "256 MiB" or "2 GB""#,
    ),
    (
        r#"[cache.memory]
capacity = 12.5"#,
        "2:12: `cache.memory.capacity` is a float, expected a size",
        r#"write a number with a unit, as in "256 MiB" or "2 GB""#,
    ),
    (
        r#"[listen]
http = []"#,
        "1:1: there is no address to listen on",
        r#"add `http = ["0.0.0.0:80"]` to [listen]"#,
    ),
    (
        r#"[listen]
http = [":80"]"#,
        r#"2:9: `listen.http[0]` is ":80", not an address and port"#,
        r#"write "0.0.0.0:80" for IPv4 or "[::]:80" for every address"#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80", "localhost:81"]"#,
        r#"2:25: `listen.http[1]` is "localhost:81", not an address and port"#,
        r#"write "127.0.0.1:81" or "[::1]:81""#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1"]"#,
        r#"2:9: `listen.http[0]` is "127.0.0.1", not an address and port"#,
        r#"write an IP address and a port, as in "0.0.0.0:80" or "[::]:80""#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "127.0.0.1:80""#,
        r#"3:9: `listen.admin` is "127.0.0.1:80", which `listen.http[0]` listens on already"#,
        "give each listener an address or a port of its own",
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
https = ["127.0.0.1:443"]"#,
        "3:9: `listen.https` has addresses, but there is no [tls]",
        r#"add `[tls]` with `certificates = "certs"`, the folder of <host>.crt and <host>.key"#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "0.0.0.0:9090""#,
        r#"3:9: `listen.admin` is "0.0.0.0:9090", open to other machines without a token"#,
        r#"add `[admin]` with `token = { env = "SELVEDGE_ADMIN_TOKEN" }`, or listen on 127.0.0.1 or a unix socket"#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "unix:""#,
        "3:9: `listen.admin` names no socket",
        r#"write it as in "unix:/run/selvedge/admin.sock""#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
handshake_timeout = "0s""#,
        "3:21: `listen.handshake_timeout` is zero, so nothing would ever be in time",
        r#"write a longer duration, as in "10s""#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
max_connections = 0"#,
        "3:19: `listen.max_connections` is 0, out of range",
        "write a number from 1 to 10000000, without quotes",
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "0.0.0.0:9090"
[admin]
token = { env = "UNSET" }"#,
        "5:17: environment variable `UNSET` for `admin.token` is not set",
        "set it before the start, as in `export UNSET=…`",
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "0.0.0.0:9090"
[admin]
token = "two words""#,
        "5:9: `admin.token` has characters other than visible ASCII",
        r#"give the credential itself, or name its variable: `token = { env = "NAME" }`"#,
    ),
    (
        r#"[listen]
http = ["127.0.0.1:80"]
admin = "0.0.0.0:9090"
[admin]
token = { env = "A", file = "b" }"#,
        "5:9: `admin.token` needs either `env` or `file`",
        r#"write `token = { env = "NAME" }`"#,
    ),
    (
        r#"[admin]
token = "t""#,
        "2:9: `admin.token` has no effect: there is no admin listener",
        r#"add `admin = "127.0.0.1:9090"` to [listen], or remove the token"#,
    ),
    (
        r#"[tls]
min_version = "1.3""#,
        "1:1: `certificates` is missing in [tls]",
        r#"add `certificates = "certs"`"#,
    ),
    (
        r#"[tls]
certificates = "certs"
min_version = "1.1""#,
        r#"3:15: `tls.min_version` is "1.1", expected one of "1.2", "1.3""#,
        r#"write one of "1.2", "1.3""#,
    ),
    (
        r#"[cache.memory]
capacity = "0""#,
        "1:2: no cache tier is left: `cache.memory.capacity` is 0 and there is no [cache.disk]",
        "to cache nothing write `[cache]` with `enabled = false`",
    ),
    (
        r#"[cache.memory]
capacity = 512"#,
        "2:12: `cache.memory.capacity` is 512 B, too small to be of use",
        r#"write at least "1 MiB", or 0 to turn the memory tier off"#,
    ),
    (
        r#"[cache.disk]
path = "cache""#,
        "1:1: `capacity` is missing in [cache.disk]",
        r#"add `capacity = "10 GiB"`"#,
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "48 MiB""#,
        "3:12: `cache.disk.capacity` is 48 MiB, less than four segments",
        r#"write at least "64 MiB", or a smaller `segment_size`"#,
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "1 GiB"
segment_size = "10 MiB""#,
        "4:16: `cache.disk.segment_size` is 10 MiB, not a power of two in range",
        r#"write a power of two from "1 MiB" to "1 GiB""#,
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "1 GiB"
sync = "never""#,
        "4:8: `cache.disk.sync` is \"never\", not a time to synchronise",
        r#"write "close", "always" or how often, as in "5s""#,
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "1 GiB"
sync = "2h""#,
        "4:8: `cache.disk.sync` is \"2h\", out of range",
        r#"write a time from "10ms" to "1h""#,
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "1 GiB"
sync = 5"#,
        "4:8: `cache.disk.sync` is an integer, expected a string",
        "put it in quotes: `\"5\"`",
    ),
    (
        r#"[cache.disk]
path = "cache"
capacity = "1 GiB"
admission = "second_use""#,
        "4:13: `cache.disk.admission` is \"second_use\", expected one of \"second-use\", \"all\"",
        r#"did you mean "second-use"?"#,
    ),
    (
        r#"[cache]
max_object = 0"#,
        "2:14: `cache.max_object` is 0 B, out of range",
        "write a size from 1 B, or `enabled = false`",
    ),
    (
        r#"[cache]
slice_size = "1 MB""#,
        "2:14: `cache.slice_size` is 976.6 KiB, out of range",
        r#"write a power of two from 64 KiB to 16 MiB, as in "1 MiB""#,
    ),
    (
        r#"[cache]
slice_size = "32 MiB""#,
        "2:14: `cache.slice_size` is 32 MiB, out of range",
        r#"write a power of two from 64 KiB to 16 MiB, as in "1 MiB""#,
    ),
    (
        r#"[access_log]
format = "jsn""#,
        r#"2:10: `access_log.format` is "jsn", expected one of "json", "combined", "off""#,
        r#"did you mean "json"?"#,
    ),
    (
        r#"[access_log]
output = "stdot""#,
        r#"2:10: `access_log.output` is "stdot", neither stdout nor stderr nor clearly a path"#,
        r#"did you mean "stdout"? A file of this name is "./stdot""#,
    ),
];
