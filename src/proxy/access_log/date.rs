//! Dates in UTC, for years 1970 to 9999: what lies outside is written as the nearest end of that span.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 9999-12-31T23:59:59.999Z.
const LAST: Duration = Duration::from_millis(253_402_300_799_999);
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A point in time, taken apart.
struct Civil {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

/// RFC 3339 with milliseconds: `2000-10-10T13:55:36.007Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let c = civil(time);
    let mut out = String::with_capacity(24);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second, c.millisecond
    );
    out
}

/// The combined format's: `10/Oct/2000:13:55:36 +0000`.
pub(super) fn combined(time: SystemTime) -> String {
    let c = civil(time);
    let month = MONTHS.get((c.month - 1) as usize).unwrap_or(&"Jan");
    format!("{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000", c.day, c.year, c.hour, c.minute, c.second)
}

fn civil(time: SystemTime) -> Civil {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years are counted from 1 March of the year 0, so that the leap day is a year's last: 719,468 days before 1970.
    // 146,097 days make 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 31, 30, 31, 30, 31 days twice over: 153 days in each five.
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Civil {
        year: era * 400 + year_of_era + u64::from(month <= 2),
        month,
        day: of_year - (153 * from_march + 2) / 5 + 1,
        hour: of_day / 3_600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
        millisecond: since.subsec_millis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_written() {
        for (ms, rfc, ncsa) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (971_186_136_007, "2000-10-10T13:55:36.007Z", "10/Oct/2000:13:55:36 +0000"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z", "31/Dec/2024:23:59:59 +0000"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(ms);
            assert_eq!((rfc3339(time).as_str(), combined(time).as_str()), (rfc, ncsa));
        }
    }

    #[test]
    fn times_out_of_span_are_clamped() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + LAST * 2), "9999-12-31T23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn every_date_agrees_with_another_implementation(ms in 0..253_402_300_799_999_u64) {
            let time = UNIX_EPOCH + Duration::from_millis(ms);
            proptest::prop_assert_eq!(rfc3339(time), humantime::format_rfc3339_millis(time).to_string());
        }
    }
}
