//! Databases in MaxMind's format: GeoIP2 and GeoLite2 of countries or cities, and those that others make like them.

use super::{Builder, Country, Place, PlaceMap, Point, Ranges, places::Continent};
use ipnet::IpNet;
use maxminddb::{Reader, WithinOptions};
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Why a database is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct DatabaseError {
    path: PathBuf,
    reason: String,
}

/// Reads a whole database. Networks without a record, or whose record tells no country, continent or coordinates, are
/// at `unknown`.
///
/// # Errors
/// The file cannot be read, is no such database, or is damaged.
pub fn read(path: &Path, unknown: Place) -> Result<PlaceMap, DatabaseError> {
    let failed = |reason: String| DatabaseError { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    parse(bytes, unknown).map_err(|reason| failed(format!("is no usable MaxMind-format database: {reason}")))
}

/// Looks only whether a file is such a database.
///
/// # Errors
/// The file cannot be read, or is no such database.
pub fn check(path: &Path) -> Result<(), DatabaseError> {
    let failed = |reason: String| DatabaseError { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let opened = Reader::from_source(bytes);
    opened.map(|_| ()).map_err(|error| failed(format!("is no usable MaxMind-format database: {error}")))
}

fn parse(bytes: Vec<u8>, unknown: Place) -> Result<PlaceMap, String> {
    let reader = Reader::from_source(bytes).map_err(|error| error.to_string())?;
    let mut builder = Builder::new(unknown);
    // A record is decoded once, however many networks share it.
    let mut records: HashMap<usize, u32> = HashMap::new();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for found in reader.networks(WithinOptions::default()).map_err(|error| error.to_string())? {
        let found = found.map_err(|error| error.to_string())?;
        let Some(offset) = found.offset() else { continue };
        let index = match records.get(&offset) {
            Some(index) => *index,
            None => {
                let record = found.decode::<Value>().map_err(|error| error.to_string())?.unwrap_or_default();
                let index = place(&record).map_or(0, |place| builder.index(place));
                records.insert(offset, index);
                index
            }
        };
        if index == 0 {
            continue;
        }
        let network = found.network().map_err(|error| error.to_string())?;
        let network = IpNet::new(network.ip(), network.prefix()).map_err(|error| error.to_string())?;
        match as_v4(network) {
            IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), index)),
            IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), index)),
        }
    }
    Ok(PlaceMap { v4: Ranges::from_nested(v4, 0), v6: Ranges::from_nested(v6, 0), places: builder.places })
}

/// IPv4 networks of a tree for IPv6 are those of ::/96.
fn as_v4(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(net) if net.prefix_len() >= 96 && u128::from(net.network()) >> 32 == 0 => {
            let address = IpAddr::V4((u128::from(net.network()) as u32).into());
            IpNet::new(address, net.prefix_len() - 96).unwrap_or(network)
        }
        network => network,
    }
}

/// What a record says. Beside MaxMind's own nested form the flat one of other makers is understood.
fn place(record: &Value) -> Option<Place> {
    let country = |key: &str| match &record[key] {
        Value::String(code) => code.parse::<Country>().ok(),
        nested => nested["iso_code"].as_str()?.parse().ok(),
    };
    let continent = match &record["continent"] {
        Value::String(code) => Continent::from_code(code),
        nested => nested["code"].as_str().and_then(Continent::from_code),
    };
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let point = |value: &Value, latitude: &str, longitude: &str| {
        Point::new(number(&value[latitude])?, number(&value[longitude])?)
    };
    let subdivision = record["subdivisions"][0]["iso_code"].as_str();
    let place = Place {
        country: country("country").or_else(|| country("country_code")).or_else(|| country("registered_country")),
        continent,
        region: subdivision.map(|code| code.to_ascii_uppercase().into()),
        point: point(&record["location"], "latitude", "longitude")
            .or_else(|| point(record, "latitude", "longitude"))
            .or_else(|| point(record, "lat", "lng")),
    };
    let place = place.completed();
    (place.country.is_some() || place.continent.is_some() || place.point.is_some()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_of_several_makers_are_understood() {
        let nested = place(&json!({
            "country": {"iso_code": "DE"}, "continent": {"code": "EU"}, "subdivisions": [{"iso_code": "by"}],
            "location": {"latitude": 48.1, "longitude": 11.6}
        }));
        let nested = nested.unwrap();
        assert_eq!((nested.country, nested.continent), ("DE".parse().ok(), Some(Continent::Europe)));
        assert_eq!((nested.region.as_deref(), nested.point), (Some("BY"), Point::new(48.1, 11.6)));
        let flat = place(&json!({"country_code": "us", "latitude": "40.5", "longitude": -74})).unwrap();
        assert_eq!((flat.continent, flat.point), (Some(Continent::NorthAmerica), Point::new(40.5, -74.0)));
        let country = place(&json!({"country": "SG"})).unwrap();
        assert!(country.point.is_some());
        for odd in [json!({}), json!([]), json!({"asn": 7}), json!({"country": "Germany"}), json!(null)] {
            assert_eq!(place(&odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_database_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.mmdb");
        assert!(read(&path, Place::UNKNOWN).unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&path, b"no database").unwrap();
        let error = read(&path, Place::UNKNOWN).unwrap_err().to_string();
        assert!(error.contains("x.mmdb") && error.contains("MaxMind-format"), "{error}");
    }
}
