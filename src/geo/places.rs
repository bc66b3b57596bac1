//! Countries and cities by name. The tables are made by `geo/countries.py` of tzdata's zone.tab, which is in the public
//! domain, and a list of cities where much is hosted.

use super::{Place, Point};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// An ISO 3166-1 alpha-2 code, in upper case. It need not be one that is assigned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// A continent, as databases count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Continent {
    /// `AF`
    Africa,
    /// `AN`
    Antarctica,
    /// `AS`
    Asia,
    /// `EU`
    Europe,
    /// `NA`: with Central America and the Caribbean.
    NorthAmerica,
    /// `OC`
    Oceania,
    /// `SA`
    SouthAmerica,
}

impl Continent {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Africa,
        Self::Antarctica,
        Self::Asia,
        Self::Europe,
        Self::NorthAmerica,
        Self::Oceania,
        Self::SouthAmerica,
    ];

    /// The two letters that databases use.
    pub fn code(self) -> &'static str {
        match self {
            Self::Africa => "AF",
            Self::Antarctica => "AN",
            Self::Asia => "AS",
            Self::Europe => "EU",
            Self::NorthAmerica => "NA",
            Self::Oceania => "OC",
            Self::SouthAmerica => "SA",
        }
    }

    /// By its two letters.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|continent| continent.code().eq_ignore_ascii_case(code))
    }
}

static COUNTRIES: LazyLock<HashMap<Country, (Continent, Point)>> = LazyLock::new(|| {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let country = fields.next()?.parse().ok()?;
        let continent = Continent::from_code(fields.next()?)?;
        Some((country, (continent, point(&mut fields)?)))
    };
    include_str!("countries.tsv").lines().filter_map(line).collect()
});

/// By the name in lower case.
static CITIES: LazyLock<HashMap<String, (Country, Point)>> = LazyLock::new(|| {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_ascii_lowercase();
        let country = fields.next()?.parse().ok()?;
        Some((name, (country, point(&mut fields)?)))
    };
    include_str!("cities.tsv").lines().filter_map(line).collect()
});

fn point<'t>(fields: &mut impl Iterator<Item = &'t str>) -> Option<Point> {
    let mut number = || fields.next()?.trim().parse::<f64>().ok();
    Point::new(number()?, number()?)
}

impl Country {
    /// Whether the built-in table has it.
    pub fn is_known(self) -> bool {
        COUNTRIES.contains_key(&self)
    }

    /// Its continent, of a country that the built-in table has.
    pub fn continent(self) -> Option<Continent> {
        COUNTRIES.get(&self).map(|(continent, _)| *continent)
    }

    /// Its main place, of a country that the built-in table has.
    pub fn point(self) -> Option<Point> {
        COUNTRIES.get(&self).map(|(_, point)| *point)
    }
}

impl FromStr for Country {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(()),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.0[0]), char::from(self.0[1]))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The place that a text names: a country's code (`DE`), a city (`Frankfurt`, `New York`, as in the built-in table), or
/// latitude and longitude in degrees (`50.11, 8.68`).
pub fn locate(text: &str) -> Option<Place> {
    let text = text.trim();
    if let Some((latitude, longitude)) = text.split_once(',') {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let point = Point::new(number(latitude)?, number(longitude)?)?;
        return Some(Place { point: Some(point), ..Place::UNKNOWN });
    }
    if let Some(country) = text.parse::<Country>().ok().filter(|country| country.is_known()) {
        return Some(Place::of_country(country));
    }
    let (country, point) = CITIES.get(&text.to_ascii_lowercase().replace('_', " "))?;
    Some(Place { point: Some(*point), ..Place::of_country(*country) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_is_understood() {
        assert_eq!(COUNTRIES.len(), include_str!("countries.tsv").lines().count());
        assert_eq!(CITIES.len(), include_str!("cities.tsv").lines().count());
        assert!(COUNTRIES.len() > 240 && CITIES.len() > 400);
        assert!(CITIES.values().all(|(country, _)| country.is_known()));
    }

    #[test]
    fn places_have_names_codes_and_coordinates() {
        let frankfurt = locate("frankfurt").unwrap();
        assert_eq!((frankfurt.country, frankfurt.continent), ("de".parse().ok(), Some(Continent::Europe)));
        assert_eq!(locate("50.1, 8.7").unwrap().point, frankfurt.point);
        assert_eq!(locate("New_York").unwrap().point, Country::from_str("US").unwrap().point());
        assert_eq!(locate("sg").unwrap().continent, Some(Continent::Asia));
        for text in ["", "ZZ", "Atlantis", "91, 0", "0, 181", "1,2,3", "x,y"] {
            assert_eq!(locate(text), None, "{text}");
        }
    }
}
