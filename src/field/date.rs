//! HTTP dates (RFC 9110 section 5.6.7): all three forms are read, the preferred one is written.
//!
//! The names of days, months and the zone are read in any case, and the day of the week is not checked against the
//! date; everything else is as the grammar has it, for a date that is read wrongly makes a response fresh.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, SystemTime};

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// Two-digit years below this are of this century, the others of the last.
const CENTURY_PIVOT: u64 = 70;

/// Reads a date from 1970 on; `None` for what is no date.
pub fn parse(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim().to_ascii_lowercase();
    let seconds = match text.split_once(", ") {
        Some((day, rest)) if rest.contains('-') => rfc850(day, rest),
        Some((day, rest)) => fixdate(day, rest),
        None => asctime(&text),
    }?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The date in the only field line of this name; `None` where it is missing, repeated or no date.
pub fn single(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value),
        _ => None,
    }
}

/// Writes a date in the preferred form; times that the form cannot hold become its nearest bound.
pub fn format(time: SystemTime) -> String {
    // httpdate panics outside 1970-9999.
    const LAST: u64 = 253_402_300_799;
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn fixdate(day: &str, rest: &str) -> Option<u64> {
    let [date, month, year, time, "gmt"] = fields(rest)? else { return None };
    short_day(day)?;
    seconds(digits(year, 4)?, named(month)?, digits(date, 2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(day: &str, rest: &str) -> Option<u64> {
    let [date, time, "gmt"] = fields(rest)? else { return None };
    DAYS.contains(&day).then_some(())?;
    let mut parts = date.split('-');
    let (date, month, year) = (parts.next()?, parts.next()?, digits(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    let year = if year < CENTURY_PIVOT { 2000 + year } else { 1900 + year };
    seconds(year, named(month)?, digits(date, 2)?, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<u64> {
    let (day, rest) = text.split_once(' ')?;
    let (month, rest) = rest.split_once(' ')?;
    short_day(day)?;
    let (date, rest) = match rest.strip_prefix(' ') {
        Some(one) => one.split_once(' ').and_then(|(date, rest)| Some((digits(date, 1)?, rest)))?,
        None => rest.split_once(' ').and_then(|(date, rest)| Some((digits(date, 2)?, rest)))?,
    };
    let [time, year] = fields(rest)?;
    seconds(digits(year, 4)?, named(month)?, date, time)
}

/// The parts between single spaces, of which there have to be `N`.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = text.split(' ');
    let mut found = [""; N];
    for slot in &mut found {
        *slot = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}

fn short_day(day: &str) -> Option<()> {
    (day.len() == 3 && DAYS.iter().any(|name| name.starts_with(day))).then_some(())
}

fn named(month: &str) -> Option<u64> {
    MONTHS.iter().position(|name| *name == month).map(|at| at as u64 + 1)
}

fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds from 1970 to a date and a `hh:mm:ss`; `None` before 1970 and for what the calendar does not have.
fn seconds(year: u64, month: u64, date: u64, time: &str) -> Option<u64> {
    let mut parts = time.split(':');
    let [hour, minute, second] = [parts.next()?, parts.next()?, parts.next()?].map(|part| digits(part, 2));
    let (hour, minute, second) = (hour?, minute?, second?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // 60 is a leap second.
    if parts.next().is_some() || !(1..=length).contains(&date) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1 March of the year 0, with years that begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + date - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<u64> {
        let time = parse(&HeaderValue::from_str(text).unwrap())?;
        Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn the_three_forms_are_one_time() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(&HeaderValue::from_static(text)), Some(time), "{text}");
        }
        assert_eq!(format(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse(&HeaderValue::from_static("0")), None);
    }

    #[test]
    fn names_are_read_in_any_case_and_the_weekday_is_not_checked() {
        let time = read("Thu, 18 Aug 2050 02:01:18 GMT");
        for text in [
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "Mon Aug 18 02:01:18 2050",
        ] {
            assert!(time.is_some() && read(text) == time, "{text}");
        }
        assert!(read("Thu Aug  8 02:01:18 2050").is_some());
    }

    #[test]
    fn other_forms_are_no_dates() {
        for text in [
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Jun 2050 02:01:18 GMT",
            "Thu, 29 Feb 2100 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 1950 02:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu,18 Aug 2050 02:01:18 GMT",
            "",
            "-1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_out_of_bounds_is_written_as_the_nearest() {
        assert_eq!(format(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_799) {
            prop_assert_eq!(read(&format(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))), Some(seconds));
        }

        #[test]
        fn no_input_panics(text in "[ -~]{0,40}") {
            let _ = read(&text);
        }
    }
}
