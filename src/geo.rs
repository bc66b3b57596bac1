//! Where addresses are: networks to places, from the operator's own list of networks, a MaxMind-format database, or
//! neither; and how far places are from each other.
//!
//! [`PlaceMap`] is the whole of it in one table of address ranges for each family. It knows for every address the place
//! and the widest prefix over which that place is the same.

pub mod build;
pub mod database;
pub mod networks;
mod places;
pub mod ranges;
mod writer;

pub use places::{Continent, Country, locate};
pub use ranges::{Address, Ranges};
pub use writer::write_database;

use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A point on the earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// North is positive, from -90 to 90.
    pub latitude: f64,
    /// East is positive, from -180 to 180.
    pub longitude: f64,
}

impl Point {
    /// `None`: not on the earth.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        on_earth.then_some(Self { latitude, longitude })
    }

    /// Along a great circle of a sphere of 6371 km, in kilometres.
    pub fn distance_to(self, other: Self) -> f64 {
        const RADIUS: f64 = 6371.0;
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half = |difference: f64| (difference / 2.0).sin().powi(2);
        let h = half(b - a) + a.cos() * b.cos() * half((other.longitude - self.longitude).to_radians());
        2.0 * RADIUS * h.sqrt().min(1.0).asin()
    }
}

/// What is known of where clients are; any part of it may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// ISO 3166-1.
    pub country: Option<Country>,
    /// The database's word, else by the country.
    pub continent: Option<Continent>,
    /// ISO 3166-2 without the country: `BY` of `DE-BY`.
    pub region: Option<Arc<str>>,
    /// The database's word, else the country's main place.
    pub point: Option<Point>,
}

impl Place {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { country: None, continent: None, region: None, point: None };

    /// What is known of a place in this country.
    pub fn of_country(country: Country) -> Self {
        Self { country: Some(country), continent: country.continent(), region: None, point: country.point() }
    }

    /// Adds what follows from the country.
    fn completed(mut self) -> Self {
        self.continent = self.continent.or_else(|| self.country?.continent());
        self.point = self.point.or_else(|| self.country?.point());
        self
    }
}

/// The place of every address.
#[derive(Debug)]
pub struct PlaceMap {
    /// IPv4 addresses to indices of `places`.
    pub v4: Ranges<u32>,
    /// IPv6 addresses to indices of `places`.
    pub v6: Ranges<u128>,
    /// The first one is that of addresses nobody knows.
    pub places: Vec<Place>,
}

impl PlaceMap {
    /// Every address is at `place`.
    pub fn everywhere(place: Place) -> Self {
        Self { v4: Ranges::constant(0), v6: Ranges::constant(0), places: vec![place] }
    }

    /// From networks that may lie in each other: of those that contain an address the longest counts, of equal ones the
    /// last. What is in none is at `unknown`.
    pub fn from_networks(networks: impl IntoIterator<Item = (IpNet, Place)>, unknown: Place) -> Self {
        let mut builder = Builder::new(unknown);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, place) in networks {
            let index = builder.index(place.completed());
            match network {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), index)),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), index)),
            }
        }
        Self { v4: Ranges::from_nested(v4, 0), v6: Ranges::from_nested(v6, 0), places: builder.places }
    }

    /// The same with what `above` knows in place of what is known here; what `above` does not know stays.
    pub fn overlaid_with(self, above: &Self) -> Self {
        let offset = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let shift = |over: u32| (over != 0).then(|| over.saturating_add(offset));
        let merge = |base: u32, over: u32| shift(over).unwrap_or(base);
        let (v4, v6) = (self.v4.combine(&above.v4, merge), self.v6.combine(&above.v6, merge));
        let mut places = self.places;
        places.extend(above.places.iter().cloned());
        Self { v4, v6, places }
    }

    /// The place of an address, and the length of the widest prefix around it that is all there.
    pub fn find(&self, address: IpAddr) -> (&Place, u8) {
        let (index, length) = match address {
            IpAddr::V4(address) => self.v4.find(u32::from(address)),
            IpAddr::V6(address) => self.v6.find(u128::from(address)),
        };
        (self.places.get(index as usize).unwrap_or(&Place::UNKNOWN), length)
    }
}

/// Gives each different place one index.
pub(crate) struct Builder {
    pub places: Vec<Place>,
    known: HashMap<String, u32>,
}

impl Builder {
    pub fn new(unknown: Place) -> Self {
        Self { places: vec![unknown], known: HashMap::new() }
    }

    /// The index of a place, never 0.
    pub fn index(&mut self, place: Place) -> u32 {
        // Floats are no keys; their shortest text is exact.
        *self.known.entry(format!("{place:?}")).or_insert_with(|| {
            self.places.push(place);
            u32::try_from(self.places.len() - 1).unwrap_or(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        locate(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        for (a, b, km) in [("Berlin", "Paris", 880.0), ("New York", "London", 5570.0), ("Sydney", "Santiago", 11340.0)]
        {
            let distance = place(a).point.unwrap().distance_to(place(b).point.unwrap());
            assert!((distance - km).abs() < km * 0.02, "{a} to {b}: {distance}");
        }
        let here = Point::new(10.0, 179.9).unwrap();
        assert!(here.distance_to(Point::new(10.0, -179.9).unwrap()) < 25.0);
        assert!(here.distance_to(here) < 1e-6);
        assert!((here.distance_to(Point::new(-10.0, -0.1).unwrap()) - 20015.0).abs() < 2.0);
    }

    #[test]
    fn the_longest_network_counts_and_what_lies_above_wins() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let base = PlaceMap::from_networks(
            [(net("10.0.0.0/8"), place("DE")), (net("10.1.0.0/16"), place("US")), (net("2001:db8::/32"), place("JP"))],
            Place::UNKNOWN,
        );
        let above = PlaceMap::from_networks([(net("10.1.2.0/24"), place("Singapore"))], Place::UNKNOWN);
        let map = base.overlaid_with(&above);
        for (address, country, length) in [
            ("10.0.0.1", Some("DE"), 16),
            ("10.128.0.1", Some("DE"), 9),
            ("10.1.0.1", Some("US"), 23),
            ("10.1.2.3", Some("SG"), 24),
            ("10.1.3.3", Some("US"), 24),
            ("11.0.0.0", None, 8),
            ("192.0.2.1", None, 1),
            ("2001:db8::1", Some("JP"), 32),
            ("2001:db9::1", None, 32),
        ] {
            let (found, scope) = map.find(address.parse().unwrap());
            assert_eq!(found.country.map(|c| c.to_string()).as_deref(), country, "{address}");
            assert_eq!(scope, length, "{address}");
        }
    }
}
