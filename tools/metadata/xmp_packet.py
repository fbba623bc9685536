"""Reads and sets the description in an XMP packet, and changes nothing else in its text."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

import effcap
from effcap.tools.metadata.edits import MetadataError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
META = "adobe:ns:meta/"
XML = "http://www.w3.org/XML/1998/namespace"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
READ = {(DC, "description"), (PHOTOSHOP, "SidecarForExtension")}
NAMESPACES = {"dc": DC, "rdf": RDF}
DEFAULT_LANGUAGE = "x-default"
MAX_BYTES = 2**24
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
ATTRIBUTE = re.compile(rb"""(?<!\s)\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass
class Element:
    """An element of a packet.

    Attributes:
        name: (namespace, local name).
        start, stop: place in the packet, from the start tag to behind the end tag.
        inner_start, inner_stop: place of the contents.
        attributes: values by (namespace, local name).
        prefixes: namespaces by prefix.
        children: child elements that are kept; see `_Parser`.
        texts: parts of the text of the element and of those in it.
    """

    name: tuple[str, str]
    start: int
    attributes: dict[tuple[str, str], str]
    prefixes: dict[str, str]
    stop: int = 0
    inner_start: int = 0
    inner_stop: int = 0
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Returns whether the element is a single tag, such as <rdf:RDF/>."""
        return self.inner_start == self.stop

    @property
    def text(self) -> str:
        """The text without spaces around it."""
        return "".join(self.texts).strip()

    def all(self, namespace: str, name: str) -> list[Element]:
        """Returns the children with a name."""
        return [child for child in self.children if child.name == (namespace, name)]


class Packet:
    """An XMP packet, or the contents of an XMP file.

    Args:
        data: the packet, in UTF-8 or UTF-16.

    Raises:
        MetadataError: it is no XMP, has a document type (which can expand to gigabytes), or another
            encoding.
    """

    def __init__(self, data: bytes):
        if len(data) > MAX_BYTES:
            raise MetadataError(f"its XMP is too large: {len(data)} bytes")
        self.bom, self.encoding = next(
            ((bom, name) for bom, name in BOMS if data.startswith(bom)), (b"", _encoding(data))
        )
        try:
            text = data[len(self.bom) :].decode(self.encoding)
        except UnicodeDecodeError as error:
            raise MetadataError(f"its XMP is not {self.encoding.upper()}: {error}") from None
        if "\ud7ff" < max(text, default="") < "\ue000":
            raise MetadataError("its XMP is damaged")
        content = text.lstrip().rstrip("\0 \t\r\n")
        if not content:
            raise MetadataError("its XMP is empty")
        self.data = content.encode("utf-8")
        before, _, after = text.partition(content)
        self.around = before, after
        self.rdf = _parse(self.data)

    @property
    def descriptions(self) -> list[Element]:
        """The elements rdf:Description, which hold the properties of the photo."""
        return self.rdf.all(RDF, "Description")

    def attribute(self, namespace: str, name: str) -> str:
        """Returns the value of a property of simple text, or ""."""
        for element in self.descriptions:
            for child in element.all(namespace, name):
                return child.text
            if (namespace, name) in element.attributes:
                return element.attributes[namespace, name].strip()
        return ""

    def _description(self) -> Element | None:
        found = [x for element in self.descriptions for x in element.all(DC, "description")]
        num_attributes = sum((DC, "description") in x.attributes for x in self.descriptions)
        if len(found) + num_attributes > 1:
            raise MetadataError("its XMP has several descriptions")
        return found[0] if found else None

    @property
    def description(self) -> str:
        """The description in the default language, or else the first one, or "".

        Raises:
            MetadataError: there are several.
        """
        element = self._description()
        if element is None:
            return self.attribute(DC, "description")
        items = _items(element)
        default = [item for item in items if _language(item) == DEFAULT_LANGUAGE]
        return (default or items or [element])[0].text

    def describe(self, text: str) -> bytes:
        """Returns the packet with another description in the default language.

        Raises:
            MetadataError: there are several.
        """
        text = NOT_IN_XML.sub("", text)
        element = self._description()
        new = self._add(text) if element is None else self._replace(element, text)
        before, after = self.around
        content = before + new.decode("utf-8") + after
        return self.bom + content.encode(self.encoding)

    def _replace(self, element: Element, text: str) -> bytes:
        """Returns the text of the packet with another value of dc:description."""
        alternatives = element.all(RDF, "Alt")
        if len(alternatives) != 1 or alternatives[0].is_empty:
            return self._splice(element.start, element.stop, _property(text, element.prefixes))
        (alternative,) = alternatives
        language = f' xml:lang="{DEFAULT_LANGUAGE}"'
        item = _tag("rdf:li", language, _escape(text), alternative.prefixes)
        for old in _items(element):
            if _language(old) == DEFAULT_LANGUAGE:
                return self._splice(old.start, old.stop, item)
        return self._splice(alternative.inner_start, alternative.inner_start, item)

    def _add(self, text: str) -> bytes:
        """Returns the text of the packet with dc:description."""
        if not self.descriptions:
            new = _property(text, self.rdf.prefixes)
            new = _tag("rdf:Description", ' rdf:about=""', new, self.rdf.prefixes)
            return self._insert(self.rdf, new)
        with_dc = [x for x in self.descriptions if x.prefixes.get("dc") == DC]
        with_attribute = [x for x in self.descriptions if (DC, "description") in x.attributes]
        owner = [*with_attribute, *with_dc, *self.descriptions][0]
        return self._insert(owner, _property(text, owner.prefixes))

    def _insert(self, parent: Element, new: str) -> bytes:
        """Returns the text with a first child of an element, whose attribute of that name goes."""
        tag = self.data[parent.start : parent.inner_start]
        for match in ATTRIBUTE.finditer(tag):
            prefix, _, local = match[1].decode().rpartition(":")
            if prefix and local == "description" and parent.prefixes.get(prefix) == DC:
                tag = tag[: match.start()] + tag[match.end() :]
                break
        if not parent.is_empty:
            return self._splice(parent.start, parent.inner_start, tag.decode() + "\n  " + new)
        name = re.match(rb"<([^\s/>]+)", tag)
        assert name is not None
        opened = tag[: tag.rindex(b"/")].decode() + ">"
        whole = f"{opened}\n  {new}\n </{name[1].decode()}>"
        return self._splice(parent.start, parent.stop, whole)

    def _splice(self, start: int, stop: int, new: str) -> bytes:
        return self.data[:start] + new.encode("utf-8") + self.data[stop:]


def new_packet(text: str) -> bytes:
    """Returns a packet with nothing but a description."""
    lines = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
        f'<x:xmpmeta xmlns:x="{META}" x:xmptk="EffCap {effcap.__version__}">',
        f'<rdf:RDF xmlns:rdf="{RDF}">',
        f'<rdf:Description rdf:about="" xmlns:dc="{DC}">',
        _property(NOT_IN_XML.sub("", text), NAMESPACES),
        "</rdf:Description>",
        "</rdf:RDF>",
        "</x:xmpmeta>",
        '<?xpacket end="w"?>',
    )
    return "\n".join(lines).encode("utf-8")


def without_padding(packet: bytes) -> bytes:
    """Returns a packet without the spaces that leave room for longer values."""
    start = packet.rfind(b"<?xpacket")
    return packet if start < 0 else packet[:start].rstrip() + b"\n" + packet[start:]


def _encoding(data: bytes) -> str:
    """Returns the encoding of a packet without byte order mark."""
    for encoding in ("utf-16-le", "utf-16-be"):
        if data.startswith("<".encode(encoding)):
            return encoding
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']*)""", data)
    if declared and declared[1].lower() not in (b"utf-8", b"us-ascii", b"ascii"):
        name = declared[1].decode("ascii", "replace")
        raise MetadataError(f"its XMP has an encoding other than UTF-8 and UTF-16: {name}")
    return "utf-8"


def _escape(text: str) -> str:
    return escape(text, {"\r": "&#13;"})


def _property(text: str, prefixes: dict[str, str]) -> str:
    """Returns the element dc:description."""
    inner = f'<rdf:li xml:lang="{DEFAULT_LANGUAGE}">{_escape(text)}</rdf:li>'
    inner = f"<rdf:Alt>{inner}</rdf:Alt>"
    missing = {name: uri for name, uri in NAMESPACES.items() if prefixes.get(name) != uri}
    declared = "".join(f' xmlns:{name}="{uri}"' for name, uri in missing.items())
    return f"<dc:description{declared}>{inner}</dc:description>"


def _tag(name: str, attributes: str, inner: str, prefixes: dict[str, str]) -> str:
    """Returns an element whose prefix is rdf."""
    declared = "" if prefixes.get("rdf") == RDF else f' xmlns:rdf="{RDF}"'
    return f"<{name}{declared}{attributes}>{inner}</{name}>"


def _items(element: Element) -> list[Element]:
    """Returns the values of a property by language."""
    return [
        item
        for kind in ("Alt", "Seq", "Bag")
        for container in element.all(RDF, kind)
        for item in container.all(RDF, "li")
    ]


def _language(item: Element) -> str:
    return item.attributes.get((XML, "lang"), "").lower()


def _parse(data: bytes) -> Element:
    """Returns the element rdf:RDF.

    Raises:
        MetadataError: there is none, or the text is no XML.
    """
    parser = _Parser(data)
    try:
        parser.expat.Parse(data, True)
    except (expat.ExpatError, RecursionError) as error:
        raise MetadataError(f"its XMP is damaged: {error}") from None
    if parser.rdf is None:
        raise MetadataError("its XMP is damaged: no rdf:RDF")
    return parser.rdf


class _Parser:
    """Finds the first rdf:RDF of a text, and the elements in it.

    Attributes:
        rdf: the element, or None. Of the properties of the photo, only those in READ are kept.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.rdf: Element | None = None
        self.open: list[Element] = []
        self.kept: list[Element] = []  # those of the open ones that are kept
        self.prefixes: dict[str, list[str]] = {}
        self.expat = expat.ParserCreate("utf-8", " ")
        self.expat.namespace_prefixes = True
        self.expat.StartDoctypeDeclHandler = self._refuse
        self.expat.StartNamespaceDeclHandler = self._declare
        self.expat.EndNamespaceDeclHandler = lambda prefix: self.prefixes[prefix or ""].pop()
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.CharacterDataHandler = self._add_text

    def _refuse(self, *_: object) -> None:
        raise MetadataError("its XMP has a document type, which XMP does not have")

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self.prefixes.setdefault(prefix or "", []).append(uri or "")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        start = self.expat.CurrentByteIndex
        names = {_name(key): value for key, value in attributes.items()}
        element = Element(_name(name), start, names, {})
        tag = TAG.match(self.data, start)
        assert tag is not None
        element.inner_start = tag.end()
        is_rdf = self.rdf is None and element.name == (RDF, "RDF")
        is_rdf = is_rdf and all(parent.name[0] == META for parent in self.open)
        if is_rdf:
            self.rdf = element
        if is_rdf or self._is_kept(element):
            element.prefixes = {prefix: uris[-1] for prefix, uris in self.prefixes.items() if uris}
            self.kept.append(element)
        self.open.append(element)

    def _is_kept(self, element: Element) -> bool:
        """Adds an element to its parent if it can be needed, and returns whether it is."""
        if not self.kept or self.kept[-1] is not self.open[-1]:
            return False
        if len(self.kept) == 2 and element.name not in READ:
            return False
        self.open[-1].children.append(element)
        return True

    def _end(self, name: str) -> None:
        element = self.open.pop()
        if self.kept and self.kept[-1] is element:
            self.kept.pop()
        if self.data[element.inner_start - 2 : element.inner_start] == b"/>":
            element.inner_stop = element.stop = element.inner_start
            return
        element.inner_stop = self.expat.CurrentByteIndex
        element.stop = self.data.index(b">", element.inner_stop) + 1

    def _add_text(self, text: str) -> None:
        for element in self.kept[2:]:  # properties and their values
            element.texts.append(text)


def _name(name: str) -> tuple[str, str]:
    namespace, _, rest = name.rpartition(" ") if name.count(" ") == 1 else name.partition(" ")
    return namespace, rest.partition(" ")[0]
