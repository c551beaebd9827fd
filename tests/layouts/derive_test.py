"""The derivation on definitions made up for it."""

import contextlib
import io
import json
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import derive

REQUEST = {
    "apiKey": 7, "type": "request", "listeners": ["broker"], "name": "SampleThingRequest",
    "validVersions": "1-4", "flexibleVersions": "2+", "latestVersionUnstable": True,
    "fields": [
        {"name": "Topics", "type": "[]Topic", "versions": "1+", "nullableVersions": "3+",
         "default": "null"},
        {"name": "Limit", "type": "int32", "versions": "2+", "default": "0x7fffffff",
         "tag": 1, "taggedVersions": "3+"},
        {"name": "Zero", "type": "int32", "versions": "1-2", "default": "0"},
    ],
    "commonStructs": [{"name": "Topic", "versions": "1+", "fields": [
        {"name": "TopicName", "type": "string", "versions": "1+", "entityType": "topicName"},
    ]}],
}
RESPONSE = {
    "apiKey": 7, "type": "response", "name": "SampleThingResponse",
    "validVersions": "1-4", "flexibleVersions": "none",
    "fields": [{"name": "ErrorCode", "type": "int16", "versions": "1+"}],
}
EXPECTED = """\
# listeners: broker
request SampleThing 7 versions=1-3 flexible=2 unstable=4
Topics [] 1+ null=3+ default=null
  TopicName string 1+ role=topicName
Limit int32 2+ tag=1 tagged=3+ default=2147483647
Zero int32 1-2
response SampleThing 7 versions=1-3 flexible=none unstable=4
ErrorCode int16 1+ role=errorCode
"""


class Derive(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.jar = Path(directory.name) / "some.jar"
        self.table = Path(directory.name) / "table"
        patch = mock.patch.object(derive, "REVIEWED", {})
        patch.start()
        self.addCleanup(patch.stop)

    def pack(self, request):
        with zipfile.ZipFile(self.jar, "w") as archive:
            for message in (request, RESPONSE):
                text = "// A licence.\n" + json.dumps(message, indent=1)
                archive.writestr(f"common/message/{message['name']}.json", text)

    def run_tool(self, *options):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                derive.main([*options, str(self.jar), str(self.table)])
            except SystemExit as end:
                return end.code, output.getvalue()
        return 0, output.getvalue()

    def with_field(self, **field):
        return {**REQUEST, "fields": REQUEST["fields"] + [{"versions": "1+", **field}]}

    def test_the_notation(self):
        self.pack(REQUEST)
        self.assertEqual(self.run_tool()[0], 0)
        text = (self.table / "07_sample_thing.layout").read_text()
        self.assertEqual(text, EXPECTED)
        self.assertEqual(self.run_tool("--check")[0], 0)

    def test_a_new_field_fails_the_check(self):
        self.pack(REQUEST)
        self.run_tool()
        self.pack(self.with_field(name="Colour", type="int8"))
        code, output = self.run_tool("--check")
        self.assertEqual(code, 1)
        self.assertIn("+Colour int8 1+\n", output)

    def test_a_new_api_and_a_new_version_fail_the_check(self):
        self.pack(REQUEST)
        self.run_tool()
        self.pack({**REQUEST, "validVersions": "1-5"})
        code, output = self.run_tool("--check")
        self.assertEqual(code, 1)
        self.assertIn("+request SampleThing 7 versions=1-4 ", output)
        (self.table / "07_sample_thing.layout").unlink()
        self.assertEqual(self.run_tool("--check")[0], 1)

    def test_a_field_that_may_matter_is_marked(self):
        for field, word in [
            ({"name": "GatewayHost", "type": "string"}, "unreviewed"),
            ({"name": "RetryErrorCode", "type": "int16"}, "unreviewed"),
            ({"name": "Owner", "type": "string", "entityType": "userName"}, "unreviewed"),
            ({"name": "Host", "type": "string"}, "host"),
        ]:
            with self.subTest(field["name"]):
                self.pack(self.with_field(**field))
                self.run_tool()
                text = (self.table / "07_sample_thing.layout").read_text()
                self.assertIn(f"{field['name']} {field['type']} 1+ role={word}\n", text)

    def test_an_unknown_property_is_an_error(self):
        self.pack(self.with_field(name="Colour", type="int8", flexibleVersions="none"))
        with self.assertRaisesRegex(AssertionError, "flexibleVersions"):
            self.run_tool()

    def test_a_review_of_nothing_is_an_error(self):
        self.pack(REQUEST)
        with mock.patch.object(derive, "REVIEWED", {"SampleThingRequest/Gone": None}):
            self.assertIn("Gone", self.run_tool()[0])


if __name__ == "__main__":
    unittest.main()
