"""``CHECK.txt``: how a stranger checks a bundle with stock tools."""

_TEXT = """\
How to check this evidence bundle
=================================

With the auditor (offline; needs no model and no network). Take both fingerprints from the owner and from the
examiner themselves, not from this file, and roots of time authorities, where there are time stamps, from those:

    auditor check . --owner-key {owner} --examiner-key {examiner} [--tsa-root ROOTS.pem] [--trust-root ROOTS.pem]

By hand, with python3, openssl and sha256sum, inside the bundle's folder. Nothing is written into it.

1. Every file is the one the manifest lists. Expect "OK" on every line.

    python3 -c 'import json; [print(f["sha256"] + "  " + f["path"]) for f in json.load(open("manifest.json"))["files"]]' | sha256sum -c

2. The examiner signed this manifest. Expect "Signature Verified Successfully", and two equal digests after it.

    work=$(mktemp -d)
    python3 -c 'import base64, json, sys; e = json.load(open("manifest.dsse.json")); p = base64.b64decode(e["payload"]); t = e["payloadType"].encode(); w = sys.argv[1]; open(w + "/pae", "wb").write(b"DSSEv1 %d %b %d %b" % (len(t), t, len(p), p)); open(w + "/payload", "wb").write(p); open(w + "/sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"]))' "$work"
    openssl pkeyutl -verify -rawin -pubin -inkey certs/examiner.pub.pem -sigfile "$work/sig" -in "$work/pae"
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/payload"))["subject"][0]["digest"]["sha256"])' "$work"
    sha256sum manifest.json

3. The owner signed the seal, and with it the whole protocol. Expect "Signature Verified Successfully".

    python3 -c 'import base64, json, sys; e = json.load(open("seal/k.seal.json")); p = base64.b64decode(e["payload"]); t = e["payloadType"].encode(); w = sys.argv[1]; open(w + "/pae", "wb").write(b"DSSEv1 %d %b %d %b" % (len(t), t, len(p), p)); open(w + "/sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"]))' "$work"
    openssl pkeyutl -verify -rawin -pubin -inkey certs/owner.pub.pem -sigfile "$work/sig" -in "$work/pae"

4. The keys are theirs. Expect the two fingerprints that owner and examiner give you.

    openssl pkey -pubin -in certs/owner.pub.pem -outform DER | tail -c 32 | sha256sum
    openssl pkey -pubin -in certs/examiner.pub.pem -outform DER | tail -c 32 | sha256sum

5. No line of the transcript was changed or dropped. Expect "chain intact" and the head that the examiner signed.

    python3 -c 'import hashlib, json; d = b"auditor/1 transcript line\\0"; h = hashlib.sha256(d).hexdigest(); lines = open("transcript.jsonl", "rb").read()[:-1].split(b"\\n"); ok = all([json.loads(l)["prev"] == h and bool(h := hashlib.sha256(d + l).hexdigest()) for l in lines]); print("chain intact" if ok else "CHAIN BROKEN", h)'
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/payload"))["predicate"]["transcript_head"])' "$work"

6. The transcript is the one the examiner signed before computing anything. Expect "Signature Verified Successfully",
   and two equal digests.

    python3 -c 'import base64, json, sys; e = json.load(open("transcript.head.dsse.json")); p = base64.b64decode(e["payload"]); t = e["payloadType"].encode(); w = sys.argv[1]; open(w + "/pae", "wb").write(b"DSSEv1 %d %b %d %b" % (len(t), t, len(p), p)); open(w + "/sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"])); print(json.loads(p)["subject"][0]["digest"]["sha256"])' "$work"
    openssl pkeyutl -verify -rawin -pubin -inkey certs/examiner.pub.pem -sigfile "$work/sig" -in "$work/pae"
    sha256sum transcript.jsonl

7. Further signatures (cosignatures/), where there are any, are over this manifest. Expect for each the role, the
   fingerprint of its key - compare it with the one its holder gives you - the digest of step 2, and "Signature
   Verified Successfully".

    for c in cosignatures/*.dsse.json; do [ ! -e "$c" ] || {{ python3 -c 'import base64, hashlib, json, sys; e = json.load(open(sys.argv[2])); p = base64.b64decode(e["payload"]); t = e["payloadType"].encode(); s = json.loads(p); k = s["predicate"]["public_key_pem"]; w = sys.argv[1]; open(w + "/pae", "wb").write(b"DSSEv1 %d %b %d %b" % (len(t), t, len(p), p)); open(w + "/pub", "w").write(k); open(w + "/sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"])); print(s["predicate"]["role"], hashlib.sha256(base64.b64decode("".join(k.splitlines()[1:-1]))[-32:]).hexdigest(), s["subject"][0]["digest"]["sha256"])' "$work" "$c"; openssl pkeyutl -verify -rawin -pubin -inkey "$work/pub" -sigfile "$work/sig" -in "$work/pae"; }}; done

   Later revisions of the report (issued/) rest on declarations that the examiner signed. Expect for each its number, the
   digest of step 2 and "Signature Verified Successfully".

    for c in issued/*.declarations.dsse.json; do [ ! -e "$c" ] || {{ python3 -c 'import base64, json, sys; e = json.load(open(sys.argv[2])); p = base64.b64decode(e["payload"]); t = e["payloadType"].encode(); s = json.loads(p); w = sys.argv[1]; open(w + "/pae", "wb").write(b"DSSEv1 %d %b %d %b" % (len(t), t, len(p), p)); open(w + "/sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"])); print("revision", s["predicate"]["revision"], s["subject"][0]["digest"]["sha256"])' "$work" "$c"; openssl pkeyutl -verify -rawin -pubin -inkey certs/examiner.pub.pem -sigfile "$work/sig" -in "$work/pae"; }}; done

8. The custody log that goes on after signing (custody.later.jsonl) belongs to this manifest, and no line of it was
   changed, exchanged or dropped before its last one. Expect "log intact" and the head; that the latest lines were cut
   off shows only if the head differs from, and no longer follows, one that was noted when an entry was added.

    python3 -c 'import hashlib, json; d = b"auditor/1 open custody line\\0" + hashlib.sha256(open("manifest.json", "rb").read()).digest(); h = hashlib.sha256(d).hexdigest(); lines = open("custody.later.jsonl", "rb").read()[:-1].split(b"\\n"); ok = all([json.loads(l)["prev"] == h and bool(h := hashlib.sha256(d + l).hexdigest()) for l in lines]); print("log intact" if ok else "LOG BROKEN", h)'

9. Where there are time stamps (*.tsr), they are over these very files. Set ROOTS to a PEM file of root certificates
   that you got from the authorities themselves. Expect "Verification: OK" after each, the seal's time before the first
   line of the transcript, the head's after its last, the manifest's after that.

    for t in seal/k.seal.*.tsr; do [ ! -e "$t" ] || openssl ts -verify -data seal/k.seal.json -in "$t" -CAfile "$ROOTS"; done
    for t in transcript.head.*.tsr; do [ ! -e "$t" ] || openssl ts -verify -data transcript.head.dsse.json -in "$t" -CAfile "$ROOTS"; done
    for t in manifest.*.tsr; do [ ! -e "$t" ] || openssl ts -verify -data manifest.dsse.json -in "$t" -CAfile "$ROOTS"; done
    for t in seal/k.seal.*.tsr transcript.head.*.tsr manifest.*.tsr; do [ ! -e "$t" ] || openssl ts -reply -in "$t" -text | sed -n "s/^Time stamp:/$(basename "$t")/p"; done

Signatures inside the custody log, made with the key that the line names, are over the line without its field
"signature", encoded like those above under the type application/vnd.model-ownership-auditor.custody+json.

What was added after signing - time stamps of the manifest, further signatures, later revisions of the report - is named
in the custody log; something removed together with the log's line about it leaves no trace here.

Whether the numbers follow from the answers is beyond stock tools: "auditor check" recomputes every one of them from
transcript.jsonl, openings.json and the sealed protocol, and compares the outcome with results.json byte by byte.

A signature shows who vouches for these bytes and that they are unaltered. Times are those of the owner's and the
examiner's own clocks unless a time-stamp token says otherwise.
"""  # noqa: E501


def by_hand_text(*, owner: str, examiner: str) -> bytes:
    """Return the bytes of ``CHECK.txt`` for a bundle under these two key fingerprints."""
    return _TEXT.format(owner=owner, examiner=examiner).encode("utf-8")
