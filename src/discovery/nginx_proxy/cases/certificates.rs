//! Certificates, redirects, HSTS, policies, client certificates, ACME.

use super::{Case, case, world};

const AREA: &str = "HTTPS";
const ACME: &str = "ACME";

pub(super) fn cases() -> Vec<Case> {
    let host = |host: &str, settings: &[&str]| {
        let host = format!("VIRTUAL_HOST={host}");
        let mut all = vec![host.as_str()];
        all.extend(settings);
        world().container("web", &all)
    };
    let web = |settings: &[&str]| host("www.a.b", settings);
    let sure = |settings: &[&str]| web(settings).pair("www.a.b");
    vec![
        case(AREA, "The pair of the host's own name serves it", sure(&[]).pair("a.b"), ["www.a.b certificate www.a.b"]),
        case(
            AREA,
            "The pair of the parent domain serves a host of three labels",
            web(&[]).pair("a.b"),
            ["www.a.b certificate a.b"],
        ),
        case(
            AREA,
            "The pair of the parent serves a wildcard",
            host("*.a.b", &[]).pair("a.b"),
            ["*.a.b certificate a.b"],
        ),
        case(
            AREA,
            "A top-level domain's pair serves no host of two labels",
            host("a.b", &[]).pair("b"),
            ["a.b certificate none"],
        ),
        case(AREA, "Only one label up counts", host("x.www.a.b", &[]).pair("a.b"), ["x.www.a.b certificate none"]),
        case(
            AREA,
            "CERT_NAME names the pair",
            sure(&["CERT_NAME=shared"]).pair("shared"),
            ["www.a.b certificate shared"],
        ),
        case(
            AREA,
            "A CERT_NAME without files: no TLS for the host, loudly",
            sure(&["CERT_NAME=gone"]),
            ["www.a.b certificate none", "www.a.b https noredirect", "warning www.a.b -: CERT_NAME is `gone`"],
        ),
        case(
            AREA,
            "The default pair serves hosts without one",
            web(&[]).pair("default"),
            ["www.a.b certificate default", "www.a.b https redirect"],
        ),
        case(
            AREA,
            "TRUST_DEFAULT_CERT=false: the default pair serves no host",
            web(&[]).pair("default").proxy("TRUST_DEFAULT_CERT", "false"),
            ["www.a.b certificate none", "www.a.b https noredirect"],
        ),
        case(
            AREA,
            "Label trust-default-cert says it for one host",
            web(&["com.github.nginx-proxy.nginx-proxy.trust-default-cert=false"]).pair("default"),
            ["www.a.b certificate none"],
        ),
        case(
            AREA,
            "A certificate without its key is none",
            web(&[]).certs(&["www.a.b.crt"]),
            ["www.a.b certificate none"],
        ),
        case(
            AREA,
            "The pair of a regex host is named by its SHA-1",
            host("~^x", &[]).pair("fcbd445ee5f0c44b6ea66a8ef5d9af3c69f1d923"),
            ["~^x certificate fcbd445ee5f0c44b6ea66a8ef5d9af3c69f1d923"],
        ),
        case(AREA, "HTTPS_METHOD is redirect by default", sure(&[]), ["www.a.b https redirect"]),
        case(AREA, "HTTPS_METHOD noredirect", sure(&["HTTPS_METHOD=noredirect"]), ["www.a.b https noredirect"]),
        case(AREA, "HTTPS_METHOD nohttp", sure(&["HTTPS_METHOD=nohttp"]), ["www.a.b https nohttp"]),
        case(AREA, "HTTPS_METHOD nohttps", sure(&["HTTPS_METHOD=nohttps"]), ["www.a.b https nohttps"]),
        case(
            AREA,
            "The proxy's HTTPS_METHOD is the default of hosts",
            sure(&[]).proxy("HTTPS_METHOD", "nohttp"),
            ["www.a.b https nohttp"],
        ),
        case(
            AREA,
            "A host's HTTPS_METHOD wins over the proxy's",
            sure(&["HTTPS_METHOD=noredirect"]).proxy("HTTPS_METHOD", "nohttp"),
            ["www.a.b https noredirect"],
        ),
        case(
            AREA,
            "An HTTPS_METHOD that there is not is told and left out",
            sure(&["HTTPS_METHOD=both"]),
            ["www.a.b https redirect", "warning www.a.b -: HTTPS_METHOD is `both`"],
        ),
        case(AREA, "Redirect without a certificate behaves as noredirect", web(&[]), ["www.a.b https noredirect"]),
        case(
            AREA,
            "nohttp without a certificate behaves as noredirect",
            web(&["HTTPS_METHOD=nohttp"]),
            ["www.a.b https noredirect"],
        ),
        case(AREA, "nohttps needs no certificate", web(&["HTTPS_METHOD=nohttps"]), ["www.a.b https nohttps"]),
        case(
            AREA,
            "ENABLE_HTTP_ON_MISSING_CERT=false of the proxy keeps the redirect",
            web(&[]).proxy("ENABLE_HTTP_ON_MISSING_CERT", "false"),
            ["www.a.b https redirect"],
        ),
        case(
            AREA,
            "ENABLE_HTTP_ON_MISSING_CERT=false of the container keeps nohttp",
            web(&["ENABLE_HTTP_ON_MISSING_CERT=false", "HTTPS_METHOD=nohttp"]),
            ["www.a.b https nohttp"],
        ),
        case(
            AREA,
            "Other methods than GET and HEAD are redirected with 301 by default",
            sure(&[]),
            ["www.a.b non-get 301"],
        ),
        case(
            AREA,
            "NON_GET_REDIRECT of the proxy",
            sure(&[]).proxy("NON_GET_REDIRECT", "308"),
            ["www.a.b non-get 308"],
        ),
        case(
            AREA,
            "Label non-get-redirect",
            sure(&["com.github.nginx-proxy.nginx-proxy.non-get-redirect=307"]),
            ["www.a.b non-get 307"],
        ),
        case(
            AREA,
            "A non-get-redirect that is none is told",
            sure(&["selvedge.non-get-redirect=302"]),
            ["www.a.b non-get 301", "warning www.a.b -: NON_GET_REDIRECT is `302`"],
        ),
        case(AREA, "HSTS is max-age=31536000 by default", sure(&[]), ["www.a.b hsts max-age=31536000"]),
        case(AREA, "HSTS of the container", sure(&["HSTS=max-age=60; preload"]), ["www.a.b hsts max-age=60; preload"]),
        case(AREA, "HSTS of the proxy", sure(&[]).proxy("HSTS", "max-age=7"), ["www.a.b hsts max-age=7"]),
        case(AREA, "HSTS=off", sure(&["HSTS=off"]), ["www.a.b hsts none"]),
        case(
            AREA,
            "HSTS on in the container while the proxy says off",
            sure(&["HSTS=max-age=9"]).proxy("HSTS", "off"),
            ["www.a.b hsts max-age=9"],
        ),
        case(AREA, "No HSTS with noredirect", sure(&["HTTPS_METHOD=noredirect"]), ["www.a.b hsts none"]),
        case(
            AREA,
            "No HSTS without a certificate",
            web(&[]).proxy("ENABLE_HTTP_ON_MISSING_CERT", "false"),
            ["www.a.b hsts none"],
        ),
        case(
            AREA,
            "SSL_POLICY Mozilla-Intermediate is TLS 1.2 and 1.3",
            sure(&[]),
            ["www.a.b tls Tls12", "!SSL_POLICY"],
        ),
        case(AREA, "SSL_POLICY Mozilla-Modern is TLS 1.3", sure(&["SSL_POLICY=Mozilla-Modern"]), ["www.a.b tls Tls13"]),
        case(
            AREA,
            "SSL_POLICY Mozilla-Old becomes TLS 1.2 and 1.3, and says so",
            sure(&["SSL_POLICY=Mozilla-Old"]),
            ["www.a.b tls Tls12", "warning www.a.b -: SSL_POLICY Mozilla-Old allows TLS 1.0 or 1.1"],
        ),
        case(
            AREA,
            "SSL_POLICY AWS-TLS13-1-3-2021-06 is TLS 1.3",
            sure(&[]).proxy("SSL_POLICY", "AWS-TLS13-1-3-2021-06"),
            ["www.a.b tls Tls13"],
        ),
        case(
            AREA,
            "SSL_POLICY AWS-TLS-1-2-2017-01 is TLS 1.2 and 1.3",
            sure(&["SSL_POLICY=AWS-TLS-1-2-2017-01"]),
            ["www.a.b tls Tls12", "!warning"],
        ),
        case(
            AREA,
            "SSL_POLICY AWS-2016-08 becomes TLS 1.2 and 1.3, and says so",
            sure(&["SSL_POLICY=AWS-2016-08"]),
            ["www.a.b tls Tls12", "warning www.a.b -: SSL_POLICY AWS-2016-08 allows TLS 1.0"],
        ),
        case(
            AREA,
            "An SSL_POLICY that nobody knows is told",
            sure(&["SSL_POLICY=Strong"]),
            ["www.a.b tls Tls12", "warning www.a.b -: SSL_POLICY `Strong` is unknown"],
        ),
        case(
            AREA,
            "A .dhparam.pem has no use, and says so",
            sure(&[]).certs(&["www.a.b.dhparam.pem"]),
            ["info www.a.b -: the .dhparam.pem"],
        ),
        case(
            AREA,
            "A host's ca.crt asks clients for certificates",
            sure(&[]).certs(&["www.a.b.ca.crt", "ca.crt"]),
            ["ClientAuth { ca: \"www.a.b.ca.crt\", crl: None, optional: false }"],
        ),
        case(
            AREA,
            "ca.crt asks the clients of every host",
            sure(&[]).certs(&["ca.crt"]),
            ["ClientAuth { ca: \"ca.crt\""],
        ),
        case(
            AREA,
            "A host's ca.crl.pem revokes, else ca.crl.pem",
            sure(&[]).certs(&["ca.crt", "ca.crl.pem", "www.a.b.ca.crl.pem"]),
            ["crl: Some(\"www.a.b.ca.crl.pem\")"],
        ),
        case(
            AREA,
            "Label ssl_verify_client optional",
            sure(&["com.github.nginx-proxy.nginx-proxy.ssl_verify_client=optional"]).certs(&["ca.crt", "ca.crl.pem"]),
            ["crl: Some(\"ca.crl.pem\"), optional: true"],
        ),
        case(AREA, "Without a ca.crt no certificate is asked for", sure(&[]), ["www.a.b clients None"]),
        case(
            AREA,
            "http3.enable is told: HTTP/3 is not spoken",
            sure(&["com.github.nginx-proxy.nginx-proxy.http3.enable=true"]),
            ["warning www.a.b -: http3.enable is true"],
        ),
        case(
            AREA,
            "http2.enable of one host is told: connections are shared",
            sure(&["com.github.nginx-proxy.nginx-proxy.http2.enable=false"]),
            ["warning www.a.b -: http2.enable cannot differ"],
        ),
        case(
            ACME,
            "Challenges in /usr/share/nginx/html are answered over plain HTTP, before redirects and passwords",
            sure(&[]).challenges(),
            ["www.a.b challenge true"],
        ),
        case(
            ACME,
            "Without the folder of challenges the container is asked for them",
            sure(&[]),
            ["www.a.b challenge false"],
        ),
        case(
            ACME,
            "ACME_HTTP_CHALLENGE_LOCATION=false of the proxy",
            sure(&[]).challenges().proxy("ACME_HTTP_CHALLENGE_LOCATION", "false"),
            ["www.a.b challenge false"],
        ),
        case(
            ACME,
            "ACME_HTTP_CHALLENGE_LOCATION=legacy is true",
            sure(&["ACME_HTTP_CHALLENGE_LOCATION=legacy"]).challenges(),
            ["www.a.b challenge true", "!warning"],
        ),
        case(ACME, "Not with nohttp", sure(&["HTTPS_METHOD=nohttp"]).challenges(), ["www.a.b challenge false"]),
        case(ACME, "Not with nohttps", sure(&["HTTPS_METHOD=nohttps"]).challenges(), ["www.a.b challenge false"]),
        case(
            ACME,
            "ACME_HOST is read, and it says that nothing is issued yet",
            web(&["ACME_HOST=www.a.b,a.b", "ACME_EMAIL=x@a.b", "ACME_CHALLENGE=dns-01", "ACME_RENEW_AFTER=30"]),
            [
                "hosts: [\"www.a.b\", \"a.b\"]",
                "email: Some(\"x@a.b\")",
                "challenge: Some(\"DNS-01\")",
                "renew_after: Some(30)",
                "warning www.a.b web: ACME_HOST asks for a certificate; none is issued here yet",
            ],
        ),
        case(
            ACME,
            "LETSENCRYPT_HOST, _EMAIL and _TEST are the same",
            web(&["LETSENCRYPT_HOST=www.a.b", "LETSENCRYPT_EMAIL=x@a.b", "LETSENCRYPT_TEST=true"]),
            ["hosts: [\"www.a.b\"]", "email: Some(\"x@a.b\")", "staging: true"],
        ),
        case(
            ACME,
            "ACME_SINGLE_DOMAIN_CERTS, ACME_KEYSIZE, ACME_CA_URI, ACME_CERT_PROFILE are read",
            web(&[
                "ACME_HOST=www.a.b",
                "ACME_SINGLE_DOMAIN_CERTS=true",
                "ACME_KEYSIZE=ec-256",
                "ACME_CA_URI=https://ca",
                "ACME_CERT_PROFILE=short",
            ]),
            ["single_domain: true", "key: Some(\"ec-256\")", "ca: Some(\"https://ca\")", "profile: Some(\"short\")"],
        ),
        case(
            ACME,
            "An ACME_CHALLENGE that there is not is told",
            web(&["ACME_HOST=www.a.b", "ACME_CHALLENGE=tls"]),
            ["warning www.a.b web: ACME_CHALLENGE is `TLS`"],
        ),
        case(
            ACME,
            "An ACME_HOST for other names concerns this host not",
            web(&["ACME_HOST=x.y"]),
            ["www.a.b acme None"],
        ),
    ]
}
