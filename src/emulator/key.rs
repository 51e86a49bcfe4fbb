//! The RSA key that signs ID tokens, and its public half.
//!
//! Knows JWS (RFC 7515) and JWK (RFC 7517); does not know what a claim means.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{self, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

/// The key of one emulator: no token of another one verifies against it.
pub(super) struct Key {
    pair: KeyPair,
    id: String,
}

/// Bytes of the digest used as a key's ID; Google's IDs have 40 hexadecimal digits.
const ID_BYTES: usize = 20;

impl Key {
    /// Takes about a tenth of a second of CPU time. `None` if the machine has no entropy.
    pub(super) fn generate() -> Option<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).ok()?;
        let digest = digest::digest(&digest::SHA256, pair.public_key().as_ref());
        let id = digest.as_ref().iter().take(ID_BYTES);
        let id = id.map(|byte| format!("{byte:02x}")).collect();
        Some(Self { pair, id })
    }

    /// `claims` as a compact JWS, RS256.
    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({ "alg": "RS256", "kid": self.id, "typ": "JWT" });
        let mut token = BASE64URL.encode(header.to_string());
        token.push('.');
        BASE64URL.encode_string(claims.to_string(), &mut token);
        let mut signed = vec![0; self.pair.public_modulus_len()];
        let scheme = &signature::RSA_PKCS1_SHA256;
        self.pair
            .sign(scheme, &SystemRandom::new(), token.as_bytes(), &mut signed)
            .ok()?;
        token.push('.');
        BASE64URL.encode_string(&signed, &mut token);
        Some(token)
    }

    /// The public half, as a member of a JWK set.
    pub(super) fn jwk(&self) -> Value {
        let key = self.pair.public_key();
        let number = |bytes: &[u8]| BASE64URL.encode(bytes);
        json!({
            "alg": "RS256",
            "e": number(key.exponent().big_endian_without_leading_zero()),
            "kid": self.id,
            "kty": "RSA",
            "n": number(key.modulus().big_endian_without_leading_zero()),
            "use": "sig",
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;

    #[test]
    fn what_is_signed_verifies_with_the_published_half_alone() {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let token = key.sign(&json!({ "aud": "a" })).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        let verifies = |jwk: Value| {
            let number = |name: &str| BASE64URL.decode(jwk[name].as_str().unwrap()).unwrap();
            let (n, e) = (number("n"), number("e"));
            RsaPublicKeyComponents { n: &n, e: &e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signature)
                .is_ok()
        };
        assert!(verifies(key.jwk()));
        assert!(!verifies(other.jwk()));
        assert_ne!(key.id, other.id);
        let (header, claims) = message.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&BASE64URL.decode(header).unwrap()).unwrap();
        assert_eq!(header["alg"], "RS256");
        assert_eq!(header["kid"], key.jwk()["kid"]);
        assert_eq!(BASE64URL.decode(claims).unwrap(), br#"{"aud":"a"}"#);
    }
}
