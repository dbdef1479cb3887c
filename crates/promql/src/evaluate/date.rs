//! The calendar: UTC, Gregorian at all times.

/// Seconds of a day.
const DAY: i128 = 86_400;

/// A moment as calendar and clock show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateTime {
    pub year: i64,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// From 0, Sunday.
    pub weekday: u8,
}

impl DateTime {
    /// The moment so many seconds after the Unix epoch.
    pub fn of_unix(seconds: impl Into<i128>) -> DateTime {
        let seconds = seconds.into();
        let (days, clock) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date_of_days(days);
        DateTime {
            year,
            month,
            day,
            hour: (clock / 3600) as u8,
            minute: (clock / 60 % 60) as u8,
            second: (clock % 60) as u8,
            weekday: (days + 4).rem_euclid(7) as u8, // The epoch was a Thursday.
        }
    }

    /// The day's number in its year, from 1.
    pub fn day_of_year(&self) -> u16 {
        let before: u16 = (1..self.month).map(|month| u16::from(days_in_month(self.year, month))).sum();
        before + u16::from(self.day)
    }

    /// How many days its month has.
    pub fn days_in_month(&self) -> u8 {
        days_in_month(self.year, self.month)
    }
}

/// `1970-01-01T00:00:00Z`
pub(crate) fn rfc3339(seconds: i64) -> String {
    let DateTime { year, month, day, hour, minute, second, .. } = DateTime::of_unix(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The date so many days after the epoch: counted in eras of 400 years from a first of March, so that a leap day comes last.
fn date_of_days(days: i128) -> (i64, u8, u8) {
    let days = days + 719_468; // From 0000-03-01.
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year as i64, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dated() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        let leap = DateTime::of_unix(1_709_251_199_i64);
        assert_eq!((leap.weekday, leap.day_of_year(), leap.days_in_month()), (4, 60, 29));
        assert_eq!(DateTime::of_unix(4_102_444_800_i64).days_in_month(), 31);
    }
}
