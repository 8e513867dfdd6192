//! What things on platforms are called: images, objects of a cluster, tunnels.

use super::value::{Complaint, read_host, read_label};

pub(super) fn read_image_name(text: &str) -> Result<(), Complaint> {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
    };
    let host = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") && host(parts[0]) {
        parts.remove(0);
    }
    let tag_is_one = !tag.is_empty()
        && tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let hex = |text: &str| {
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
    };
    let digest_is_one = digest.is_none_or(|digest| digest.strip_prefix("sha256:").is_some_and(hex));
    if name.len() <= 255 && parts.iter().all(|text| part(text)) && tag_is_one && digest_is_one {
        return Ok(());
    }
    Err(Complaint::new(
        format!("`{text}` is no name of an image"),
        "write it as `docker pull` takes it, such as ghcr.io/acme/api:1.8.2",
    ))
}

/// The namespace and the name of an object.
pub(super) fn read_object_name(text: &str) -> Result<(String, String), Complaint> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        // Most names of objects are those of hosts.
        read_label(namespace).is_ok() && read_host(name).is_ok()
    });
    let parts = parts.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    parts.ok_or_else(|| {
        Complaint::new(
            format!("`{text}` is no object of a cluster"),
            "write its namespace and its name, such as cloudflared/cloudflared",
        )
    })
}

pub(super) fn read_tunnel(text: &str) -> Result<(), Complaint> {
    let lengths = text.split('-').map(str::len);
    let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    if hex && lengths.eq([8, 4, 4, 4, 12]) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("`{text}` is no id of a tunnel"),
        "write the id that `cloudflared tunnel list` shows, such as 6ff42ae2-765d-4adf-8112-31c55c1551ef",
    ))
}
