"""
The HTML of Bookinfo: values in, one page out.

Everything that comes from elsewhere is escaped here, in one place; pages load nothing but ``/static/style.css``.
"""

from dataclasses import dataclass
from html import escape
from importlib import resources

from authz.demo.apps.calls import AppReply

MOST_STARS = 5
SIGN_IN = "/productpage"
"""Whoever opens it without a session is led to the issuer by the gateway, and back to it."""
STYLE = resources.files("authz.demo.apps").joinpath("style.css").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who asks, as the ingress gateway read it from the verified token; without one all fields are empty."""

    name: str = ""
    role: str = ""

    @property
    def is_signed_in(self) -> bool:
        """Whether a verified token named somebody."""
        return bool(self.name)


def page(title: str, visitor: Visitor, body: str) -> str:
    """Frame ``body`` (HTML) with head, navigation and sign-in state."""
    if visitor.is_signed_in:
        links = '<a href="/admin">Moderation</a>' if visitor.role == "moderator" else ""
        who = (
            f"{links}<span>Signed in as <strong>{escape(visitor.name)}</strong></span>"
            f'<span class="badge">{escape(visitor.role or "no role")}</span>'
            '<form method="post" action="/logout"><button class="plain">Sign out</button></form>'
        )
    else:
        who = f'<a class="button" href="{SIGN_IN}">Sign in</a>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)} · Bookinfo</title><link rel="icon" href="/static/icon.svg">'
        '<link rel="stylesheet" href="/static/style.css"></head><body>'
        '<a class="skip" href="#content">Skip to content</a>'
        f'<header class="top"><div><a class="brand" href="/">Bookinfo</a><nav class="who" aria-label="Account">{who}'
        f'</nav></div></header><main id="content">{body}</main></body></html>'
    )


def landing(visitor: Visitor) -> str:
    """The page that everybody may see."""
    if visitor.is_signed_in:
        action = '<a class="button" href="/productpage">Open The Comedy of Errors</a>'
    else:
        action = f'<a class="button" href="{SIGN_IN}">Sign in to read</a>'
    body = (
        "<h1>One book, six services, and a policy for each edge</h1>"
        '<p class="lead">Every call behind this page goes from Envoy to Envoy over mutual TLS, and each one is decided '
        "by the authorization server with the policies in <code>policies/</code>. Change a file there while the demo "
        "runs and reload: the answer changes within a second.</p>"
        f"<p>{action}</p>"
        '<div class="columns"><section class="sheet"><h2>alice</h2><p>A reader: may open the product page and the '
        "API, may not moderate.</p></section>"
        '<section class="sheet"><h2>bob</h2><p>A moderator: may also open <a href="/admin">/admin</a> and hide '
        "reviews.</p></section>"
        '<section class="sheet"><h2>nobody</h2><p><a href="/productpage">The product page</a> leads a browser to the '
        "issuer, and answers 403 to a program; <code>/internal</code> answers 403 to whoever is signed in.</p>"
        "</section></div>"
    )
    return page("Welcome", visitor, body)


def product(visitor: Visitor, details: AppReply, reviews: AppReply, hidden: frozenset[str], request_id: str) -> str:
    """The product page: a book, its details, and what reviewers say."""
    body = (
        "<h1>The Comedy of Errors</h1>"
        '<p class="lead">The Comedy of Errors is one of William Shakespeare’s early plays. It is his shortest and one '
        "of his most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, "
        "in addition to puns and word play.</p>"
        f'<div class="columns"><section class="sheet" aria-labelledby="details"><h2 id="details">Book details</h2>'
        f"{_details(details)}</section>"
        f'<section class="sheet" aria-labelledby="reviews"><h2 id="reviews">Book reviews</h2>'
        f"{_reviews(reviews, hidden)}</section></div>"
        f'<p class="served">Request <code>{escape(request_id or "unknown")}</code>: the decisions of every hop carry '
        "this id.</p>"
    )
    return page("The Comedy of Errors", visitor, body)


def admin(visitor: Visitor, reviewers: tuple[str, ...], hidden: frozenset[str]) -> str:
    """The moderators' page."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{'hidden' if name in hidden else 'shown'}</td><td>"
        f'<form method="post" action="/admin/reviews/{escape(name)}"><button name="hidden" '
        f'value="{"no" if name in hidden else "yes"}">{"Show" if name in hidden else "Hide"}'
        f" the review of {escape(name)}</button></form></td></tr>"
        for name in reviewers
    )
    body = (
        '<h1>Moderation</h1><p class="lead">Only moderators reach this page, and each visit is marked by an AUDIT '
        'policy.</p><div class="sheet"><table><thead><tr><th scope="col">Reviewer</th><th scope="col">State</th>'
        f'<th scope="col">Change</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
    return page("Moderation", visitor, body)


def _details(answer: AppReply) -> str:
    if not answer.is_ok:
        return _refusal("Error fetching product details!", answer)
    shown = ("type", "pages", "publisher", "language", "ISBN-10", "ISBN-13")
    content = answer.content
    facts = "".join(
        f"<dt>{escape(name.capitalize())}</dt><dd>{escape(str(content.get(name, '')))}</dd>" for name in shown
    )
    market = content.get("market")
    if isinstance(market, dict):
        if "error" in market:
            sold = f"<span>not known (books.example.com: {escape(str(market.get('status')))})</span>"
        else:
            sold = (
                f'<span class="fine">{escape(str(market.get("price")))}, {escape(str(market.get("seller")))}</span> '
                "by way of the egress gateway"
            )
        facts += f"<dt>Sold for</dt><dd>{sold}</dd>"
    return f"<dl>{facts}</dl>"


def _reviews(answer: AppReply, hidden: frozenset[str]) -> str:
    if not answer.is_ok:
        return _refusal("Error fetching product reviews!", answer)
    found = answer.content.get("reviews")
    reviews = [review for review in found if isinstance(review, dict)] if isinstance(found, list) else []
    parts = []
    for review in reviews:
        reviewer = str(review.get("reviewer", ""))
        if reviewer in hidden:
            parts.append(f"<blockquote><footer>The review of {escape(reviewer)} is hidden.</footer></blockquote>")
            continue
        parts.append(
            f"<blockquote><p>{escape(str(review.get('text', '')))}</p><footer>— {escape(reviewer)}</footer>"
            f"{_stars(review.get('rating'))}</blockquote>"
        )
    served = f'<p class="served">Served by <code>{escape(str(answer.content.get("podname", "")))}</code></p>'
    return "".join(parts) + served


def _stars(rating: object) -> str:
    if not isinstance(rating, dict):
        return ""
    if "error" in rating:
        return (
            f'<p class="refused"><strong>{escape(str(rating["error"]))}.</strong> '
            f"Status {escape(str(rating.get('status')))}.</p>"
        )
    stars = rating.get("stars")
    count = stars if isinstance(stars, int) and 0 <= stars <= MOST_STARS else 0
    colour = "red" if rating.get("color") == "red" else "black"
    return (
        f'<p class="stars {colour}" role="img" aria-label="{count} of {MOST_STARS} stars">{"★" * count}'
        f'<span class="off">{"★" * (MOST_STARS - count)}</span></p>'
    )


def _refusal(title: str, answer: AppReply) -> str:
    """Istio's Bookinfo says only "currently unavailable"; here the refusal names itself."""
    why = f"Status {answer.status}: {escape(answer.error)}" if answer.status else escape(answer.error)
    found = f"<br>Decision <code>{escape(answer.decision_id)}</code>" if answer.decision_id else ""
    return f'<div class="refused" role="alert"><strong>{escape(title)}</strong><br>{why}{found}</div>'
