//! The policy against a model of its own: whatever the fields and the clocks, nothing is used beyond its allowance.

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::tests::{RULES, now, request, response};
use super::*;
use crate::field::date;

/// A response, what became of it, and a request, in numbers from which the test works out what is allowed by itself.
#[derive(Clone, Debug)]
struct Scene {
    max_age: Option<u32>,
    s_maxage: Option<u32>,
    /// The `max-age` of `CDN-Cache-Control`.
    targeted: Option<u32>,
    /// Seconds from `Date` to `Expires`.
    expires: Option<i64>,
    /// Seconds from `Last-Modified` to `Date`.
    modified: Option<u64>,
    age: Option<u64>,
    /// Seconds from this clock to the origin's.
    skew: i64,
    forbids: &'static str,
    updating: Option<u32>,
    error: Option<u32>,
    grace: u32,
    /// The origin confirmed it after so many seconds, with nothing but a date of its own.
    confirmed: Option<u64>,
    wanted_age: Option<u32>,
    wanted_fresh: Option<u32>,
    wanted_stale: Option<u32>,
    /// From storing or confirming to use, by the clock: negative where it was put back meanwhile.
    elapsed: i64,
}

/// What forbids stale use, and two that do not.
const FORBIDDING: [&str; 9] = [
    "",
    "must-revalidate",
    "proxy-revalidate",
    "no-cache",
    "x-unknown",
    "x-unknown=\"must-revalidate, no-cache\"",
    "No-Cache=\"set-cookie\"",
    "immutable; must-revalidate",
    "public no-cache",
];

impl Scene {
    fn date(at: i64) -> String {
        let base = i64::try_from(now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
        date::format(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(base + at).unwrap()))
    }

    fn response(&self) -> ResponseHeader {
        let directive = |name: &str, value: Option<u32>| value.map(|value| format!("{name}={value}"));
        let cc: Vec<String> = [
            directive("max-age", self.max_age),
            directive("S-Maxage", self.s_maxage),
            directive("stale-while-revalidate", self.updating),
            directive("stale-if-error", self.error),
            Some(self.forbids.to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut fields = vec![("cache-control", cc.join(" ,")), ("etag", "\"a\"".to_owned())];
        fields.push(("date", Self::date(self.skew)));
        fields.extend(self.targeted.map(|age| ("cdn-cache-control", format!("max-age={age}"))));
        fields.extend(self.expires.map(|offset| ("expires", Self::date(self.skew + offset))));
        fields.extend(self.modified.map(|ago| ("last-modified", Self::date(self.skew - ago as i64))));
        fields.extend(self.age.map(|age| ("age", age.to_string())));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        response(200, &fields)
    }

    /// Whether a directive in `Cache-Control` is heeded at all.
    fn heeded(&self) -> bool {
        self.targeted.is_none()
    }

    fn validates_always(&self) -> bool {
        self.heeded() && matches!(self.forbids, "no-cache" | "No-Cache=\"set-cookie\"" | "public no-cache")
    }

    fn stale_forbidden(&self) -> bool {
        let told = matches!(self.forbids, "must-revalidate" | "proxy-revalidate" | "immutable; must-revalidate");
        self.heeded() && (self.s_maxage.is_some() || told) || self.validates_always()
    }

    fn lifetime(&self) -> i64 {
        if let Some(seconds) = self.targeted {
            return seconds.into();
        }
        if self.validates_always() {
            return 0;
        }
        // A confirmation has a new date; what is counted from it is less by the time between.
        let passed = self.confirmed.map_or(0, |after| after as i64 - self.skew);
        let told = self.s_maxage.or(self.max_age).map(i64::from);
        told.or(self.expires.map(|offset| (offset - passed).max(0)))
            .unwrap_or_else(|| self.modified.map_or(0, |ago| ((ago as i64 + passed) / 10).min(86_400)))
    }

    /// At the time of use, going by the clock.
    fn age(&self) -> i64 {
        let at_arrival = match self.confirmed {
            Some(_) => 0,
            None => (-self.skew).max(0).max(self.age.unwrap_or(0) as i64),
        };
        at_arrival + self.elapsed
    }

    /// What is stored, and the moment of its use.
    fn stored(&self) -> Option<(CacheMeta, SystemTime)> {
        let rules = ResponseRules { grace: self.grace, ..RULES };
        let asked = request(&[]);
        let mut meta = admits_response(&asked, &self.response(), now(), &rules).ok()?.meta;
        let mut at = now();
        if let Some(after) = self.confirmed {
            at += Duration::from_secs(after);
            let mut merged = meta.response_header_copy();
            let date = Self::date(after as i64);
            merge_validation(&mut merged, &response(304, &[("date", &date)]).headers, at);
            meta = admits_response(&asked, &merged, at, &rules).ok()?.meta;
        }
        let by = Duration::from_secs(self.elapsed.unsigned_abs());
        Some((meta, if self.elapsed < 0 { at - by } else { at + by }))
    }
}

fn scenes() -> impl Strategy<Value = Scene> {
    let told = (of(0u32..200), of(0u32..200), of(0u32..200), of(-100i64..300), of((0u64..500).prop_map(|n| n * 10)));
    let windows = (of(0u32..300), of(0u32..300), 0u32..300, select(FORBIDDING.to_vec()));
    let wanted = (of(0u32..300), of(0u32..100), of(0u32..300));
    let elapsed = prop_oneof![4 => 0i64..800, 1 => -100_000i64..0];
    let confirmed = proptest::option::weighted(0.3, 0u64..400);
    (told, windows, wanted, of(0u64..100), -60i64..60, elapsed, confirmed).prop_map(
        |(told, windows, wanted, age, skew, elapsed, confirmed)| Scene {
            max_age: told.0,
            s_maxage: told.1,
            targeted: told.2,
            expires: told.3,
            modified: told.4,
            age,
            skew,
            updating: windows.0,
            error: windows.1,
            grace: windows.2,
            forbids: windows.3,
            confirmed,
            wanted_age: wanted.0,
            wanted_fresh: wanted.1,
            wanted_stale: wanted.2,
            elapsed,
        },
    )
}

/// What may be the clock's own doing: seconds are its measure.
const TOLERANCE: i64 = 2;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn nothing_is_served_stale_beyond_its_allowance(scene in scenes()) {
        let Some((meta, at)) = scene.stored() else { return Ok(()) };
        let demand = Demand {
            max_age: scene.wanted_age,
            min_fresh: scene.wanted_fresh,
            max_stale: scene.wanted_stale,
            ..Demand::default()
        };
        let (age, lifetime) = (scene.age(), scene.lifetime());
        let over = age - lifetime;
        // Before the moment of storing nothing can be said of how old it is.
        let known = scene.elapsed >= -TOLERANCE;
        let fresh = known && lifetime > 0 && over <= 0;
        if on_hit(&meta, &demand, at) == HitVerdict::Use {
            let agreed = scene.wanted_stale.is_some_and(|most| over <= most.into()) && !scene.stale_forbidden();
            prop_assert!(known, "used {} s before it was stored", -scene.elapsed);
            prop_assert!(fresh || agreed, "age {age} of {lifetime}");
            prop_assert!(scene.wanted_age.is_none_or(|most| age <= most.into()));
            prop_assert!(!fresh || scene.wanted_fresh.is_none_or(|least| -over >= least.into()));
        } else if fresh {
            let asks = scene.wanted_age.is_some() || scene.wanted_fresh.is_some();
            prop_assert!(asks, "fresh and asked for nothing, yet refused: age {age} of {lifetime}");
        }
        let directive = |value: Option<u32>| value.filter(|_| scene.heeded());
        for (cause, allowance) in [
            (StaleCause::Updating, directive(scene.updating).unwrap_or(0)),
            (StaleCause::Error, directive(scene.error).unwrap_or(scene.grace)),
        ] {
            if may_serve_stale(&meta, at, cause) {
                prop_assert!(!scene.stale_forbidden(), "{cause:?}");
                prop_assert!(known, "{cause:?} {} s before it was stored", -scene.elapsed);
                prop_assert!(over <= allowance.into(), "{cause:?}: {over} over, {allowance} allowed");
            }
        }
    }

    #[test]
    fn no_fields_however_odd_make_a_response_fresh_for_longer_than_the_longest_they_name(
        lines in lines(), elapsed in prop_oneof![0u64..100, 100u64..(1 << 33)],
    ) {
        let fields: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let Ok(stored) = admits_response(&request(&[]), &response(200, &fields), now(), &RULES) else { return Ok(()) };
        let numbers = lines.iter().flat_map(|(_, value)| value.split(|c: char| !c.is_ascii_digit()));
        let longest = numbers.filter(|n| !n.is_empty()).map(|n| n.parse::<u128>().unwrap_or(u128::MAX)).max().unwrap_or(0).min(1 << 31);
        let at = now() + Duration::from_secs(elapsed);
        if on_hit(&stored.meta, &Demand::default(), at) == HitVerdict::Use {
            prop_assert!(u128::from(elapsed) <= longest, "after {elapsed} s, of which {longest} were named");
            let heeded = |name: &str| name == "cache-control" && !fields.iter().any(|(name, _)| *name == "cdn-cache-control");
            for (name, value) in fields.iter().filter(|(name, value)| heeded(name) && !value.contains('"')) {
                let forbidden = value.split([',', ';', ' ']).any(|word| word == "no-store" || word == "private");
                prop_assert!(!forbidden, "{name}: {value}");
            }
        }
    }
}

/// Fields made of pieces that mean something here or nearly do.
fn lines() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name =
        select(vec!["cache-control", "cache-control", "expires", "date", "age", "last-modified", "cdn-cache-control"]);
    let piece = select(vec![
        "max-age",
        "max-age=",
        "max-age=60",
        "s-maxage=5",
        "no-store",
        "private",
        "public",
        "=",
        ";",
        ",",
        ", ",
        " ",
        "\"",
        "\\",
        "-1",
        "7",
        "99999999999999999999",
        "stale-if-error=9",
        "Thu, 01 Jan 2026 00:00:00 GMT",
    ]);
    let value = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    prop::collection::vec((name, value), 0..5)
}
