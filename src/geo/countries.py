#!/usr/bin/env python3
"""Writes countries.tsv and cities.tsv beside this file, from tzdata's zone.tab.

zone.tab is in the public domain; it has a place of each country's time zones. A country stands where its first zone
does, which is most often its largest city, but for those in MAIN. To the zones' cities those are added where much is
hosted; their coordinates are to a tenth of a degree, and facts.

    src/geo/countries.py [/usr/share/zoneinfo/zone.tab]
"""
import os
import re
import sys

CONTINENTS = {
    "AF": "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ NA NE "
          "NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW",
    "AN": "AQ BV GS HM TF",
    "AS": "AE AF AM AZ BD BH BN BT CC CN CX GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV MY NP OM "
          "PH PK PS QA SA SG SY TH TJ TL TM TR TW UZ VN YE",
    "EU": "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME MK "
          "MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK",
    "NA": "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC TT "
          "US VC VG VI",
    "OC": "AS AU CK FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS",
    "SA": "AR BO BR CL CO EC FK GF GY PE PY SR UY VE",
}

# Zones of countries whose first one is far from where most people are.
MAIN = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv",
}

HOSTING = """
Amsterdam NL 52.4 4.9;Ashburn US 39.0 -77.5;Atlanta US 33.7 -84.4;Bangalore IN 13.0 77.6;Barcelona ES 41.4 2.2
Beauharnois CA 45.3 -73.9;Boston US 42.4 -71.1;Cape Town ZA -33.9 18.4;Chennai IN 13.1 80.3;Columbus US 40.0 -83.0
Council Bluffs US 41.3 -95.9;Dallas US 32.8 -96.8;Delhi IN 28.6 77.2;Des Moines US 41.6 -93.6;Dusseldorf DE 51.2 6.8
Falkenstein DE 50.5 12.4;Frankfurt DE 50.1 8.7;Fremont US 37.5 -122.0;Fujairah AE 25.1 56.3;Geneva CH 46.2 6.1
Gravelines FR 51.0 2.1;Hamburg DE 53.6 10.0;Hillsboro US 45.5 -123.0;Houston US 29.8 -95.4;Hyderabad IN 17.4 78.5
Las Vegas US 36.2 -115.1;Lille FR 50.6 3.1;Marseille FR 43.3 5.4;Melbourne AU -37.8 145.0;Miami US 25.8 -80.2
Milan IT 45.5 9.2;Montreal CA 45.5 -73.6;Mumbai IN 19.1 72.9;Munich DE 48.1 11.6;Newark US 40.7 -74.2
Nuremberg DE 49.5 11.1;Osaka JP 34.7 135.5;Palo Alto US 37.4 -122.1;Piscataway US 40.6 -74.5;Portland US 45.5 -122.7
Rio de Janeiro BR -22.9 -43.2;Roubaix FR 50.7 3.2;Salt Lake City US 40.8 -111.9;San Francisco US 37.8 -122.4
San Jose US 37.3 -121.9;Seattle US 47.6 -122.3;Strasbourg FR 48.6 7.8;Virginia US 39.0 -77.5;Washington US 38.9 -77.0
"""


def degrees(text, digits):
    sign = -1 if text[0] == "-" else 1
    whole, rest = int(text[1 : 1 + digits]), text[1 + digits :]
    return sign * round(whole + int(rest[:2]) / 60 + (int(rest[2:]) / 3600 if rest[2:] else 0), 2)


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/zoneinfo/zone.tab"
    continent = {code: name for name, codes in CONTINENTS.items() for code in codes.split()}
    countries, cities = {}, {}
    for line in open(source, encoding="ascii"):
        if line.startswith("#"):
            continue
        code, place, zone = line.rstrip("\n").split("\t")[:3]
        latitude, longitude = re.fullmatch(r"([+-]\d+)([+-]\d+)", place).groups()
        point = degrees(latitude, 2), degrees(longitude, 3)
        if code not in countries or MAIN.get(code) == zone or (code == "UA" and zone == "Europe/Kiev"):
            countries[code] = point
        cities.setdefault(zone.rsplit("/", 1)[1].replace("_", " "), (code, point))
    for entry in HOSTING.replace("\n", ";").strip(";").split(";"):
        name, code, latitude, longitude = re.fullmatch(r"(.+) ([A-Z]{2}) (\S+) (\S+)", entry).groups()
        cities[name] = (code, (float(latitude), float(longitude)))
    countries.setdefault("XK", (42.67, 21.17))
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "countries.tsv"), "w", encoding="ascii") as out:
        for code, (latitude, longitude) in sorted(countries.items()):
            out.write(f"{code}\t{continent[code]}\t{latitude}\t{longitude}\n")
    with open(os.path.join(folder, "cities.tsv"), "w", encoding="ascii") as out:
        for name, (code, (latitude, longitude)) in sorted(cities.items()):
            out.write(f"{name}\t{code}\t{latitude}\t{longitude}\n")


main()
