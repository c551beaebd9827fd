#!/usr/bin/env python3
"""Derive `src/apis/layouts/*.layout` from the message definitions inside a kafka-clients jar.

    derive.py JAR OUTDIR          write one file per API key
    derive.py --check JAR DIR     exit 1 and print a diff if DIR is not what the jar says

The facts (names, types, versions, tags, defaults) come from `common/message/*.json`. The roles come
from the definitions' `entityType` and from the reviewed tables below. A field that looks as if it
mattered to a proxy and that nobody has reviewed gets `role=unreviewed`, which the parser of the
notation refuses: a new Kafka release cannot slip past the review.
"""

import difflib
import json
import re
import sys
import zipfile
from pathlib import Path

SCALARS = {
    "bool", "int8", "int16", "uint16", "int32", "uint32", "int64", "float64",
    "uuid", "string", "bytes", "records",
}

# Roles by the definitions' own `entityType`.
BY_ENTITY = {
    "topicName": "topicName",
    "groupId": "groupId",
    "transactionalId": "transactionalId",
    "producerId": "producerId",
    "brokerId": "brokerId",
}

# Roles by name and type, for what has no `entityType`.
BY_NAME = {
    ("TopicId", "uuid"): "topicId",
    ("Partition", "int32"): "partition",
    ("PartitionIndex", "int32"): "partition",
    ("PartitionId", "int32"): "partition",
    ("PartitionIndexes", "[]int32"): "partition",
    ("Partitions", "[]int32"): "partition",
    ("GroupId", "string"): "groupId",
    ("Host", "string"): "host",
    ("Port", "int32"): "port",
    ("Port", "uint16"): "port",
    ("ErrorCode", "int16"): "errorCode",
    ("PartitionErrorCode", "int16"): "errorCode",
    ("AcknowledgeErrorCode", "int16"): "errorCode",
    ("TopicConfigErrorCode", "int16"): "errorCode",
    ("ErrorMessage", "string"): "errorMessage",
    ("AcknowledgeErrorMessage", "string"): "errorMessage",
    ("BatchIndexErrorMessage", "string"): "errorMessage",
    ("ThrottleTimeMs", "int32"): "throttleMs",
    ("AuthorizedOperations", "int32"): "authorizedOperations",
    ("TopicAuthorizedOperations", "int32"): "authorizedOperations",
    ("ClusterAuthorizedOperations", "int32"): "authorizedOperations",
    ("SessionId", "int32"): "sessionId",
    ("SessionEpoch", "int32"): "sessionEpoch",
    ("ShareSessionEpoch", "int32"): "sessionEpoch",
    ("ClusterId", "string"): "clusterId",
    ("ResourceType", "int8"): "resourceType",
    ("ResourceTypes", "[]int8"): "resourceType",
    ("ResourceTypeFilter", "int8"): "resourceType",
    ("ResourceName", "string"): "resourceName",
    ("ResourceNameFilter", "string"): "resourceName",
    ("MemberId", "string"): "memberId",
    ("ClientHost", "string"): "clientHost",
    ("Rack", "string"): "rack",
    ("RackId", "string"): "rack",
    ("SubscribedTopicRegex", "string"): "topicRegex",
    ("SourceTopicRegex", "[]string"): "topicRegex",
    ("PrincipalName", "string"): "userName",
    ("OwnerPrincipalName", "string"): "userName",
    ("TokenRequesterPrincipalName", "string"): "userName",
    ("User", "string"): "userName",
    # The definitions leave these node ids without an `entityType`.
    ("LeaderId", "int32"): "brokerId",
    ("VoterId", "int32"): "brokerId",
    ("ControllerId", "int32"): "brokerId",
    ("PreferredSuccessors", "[]int32"): "brokerId",
}

# Reviewed one by one: `Message/Path` to a role, or to None for "looks like one, is not".
REVIEWED = {
    # The requester says which replica it is, which changes what a broker authorizes.
    "ListOffsetsRequest/ReplicaId": "replicaId",
    "FetchRequest/ReplicaId": "replicaId",
    "FetchRequest/ReplicaState/ReplicaId": "replicaId",
    "OffsetForLeaderEpochRequest/ReplicaId": "replicaId",
    "FetchSnapshotRequest/ReplicaId": "replicaId",
    # Names that the definitions abbreviate.
    "ProduceRequest/TopicData/PartitionData/Index": "partition",
    "ProduceResponse/Responses/PartitionResponses/Index": "partition",
    "FetchSnapshotResponse/Topics/Partitions/Index": "partition",
    "JoinGroupResponse/Leader": "memberId",
    "DescribeUserScramCredentialsRequest/Users/Name": "userName",
    "AlterUserScramCredentialsRequest/Deletions/Name": "userName",
    "AlterUserScramCredentialsRequest/Upsertions/Name": "userName",
    # A group, a transactional id or `group:topicId:partition`: `KeyType` says which.
    "FindCoordinatorRequest/Key": "resourceName",
    "FindCoordinatorRequest/CoordinatorKeys": "resourceName",
    "FindCoordinatorResponse/Coordinators/Key": None,
    # The host an ACL speaks of, not an address to connect to.
    "DescribeAclsResponse/Resources/Acls/Host": None,
    "CreateAclsRequest/Creations/Host": None,
    "DeleteAclsResponse/FilterResults/MatchingAcls/Host": None,
    # Endpoints of Streams applications, which no proxy stands in front of.
    "StreamsGroupHeartbeatRequest/UserEndpoint/Host": None,
    "StreamsGroupHeartbeatRequest/UserEndpoint/Port": None,
    "StreamsGroupHeartbeatResponse/PartitionsByUserEndpoint/UserEndpoint/Host": None,
    "StreamsGroupHeartbeatResponse/PartitionsByUserEndpoint/UserEndpoint/Port": None,
    "StreamsGroupDescribeResponse/Groups/Members/UserEndpoint/Host": None,
    "StreamsGroupDescribeResponse/Groups/Members/UserEndpoint/Port": None,
    # Task numbers of a subtopology, not partitions of a topic.
    "StreamsGroupHeartbeatRequest/ActiveTasks/Partitions": None,
    "StreamsGroupHeartbeatRequest/StandbyTasks/Partitions": None,
    "StreamsGroupHeartbeatRequest/WarmupTasks/Partitions": None,
    "StreamsGroupHeartbeatRequest/TaskOffsets/Partition": None,
    "StreamsGroupHeartbeatRequest/TaskEndOffsets/Partition": None,
    "StreamsGroupHeartbeatResponse/ActiveTasks/Partitions": None,
    "StreamsGroupHeartbeatResponse/StandbyTasks/Partitions": None,
    "StreamsGroupHeartbeatResponse/WarmupTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/TaskOffsets/Partition": None,
    "StreamsGroupDescribeResponse/Groups/Members/TaskEndOffsets/Partition": None,
    "StreamsGroupDescribeResponse/Groups/Members/Assignment/ActiveTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/Assignment/StandbyTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/Assignment/WarmupTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/TargetAssignment/ActiveTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/TargetAssignment/StandbyTasks/Partitions": None,
    "StreamsGroupDescribeResponse/Groups/Members/TargetAssignment/WarmupTasks/Partitions": None,
    # Names of protocols, features, settings, quotas, listeners and tags.
    "JoinGroupRequest/Protocols/Name": None,
    "ApiVersionsResponse/SupportedFeatures/Name": None,
    "ApiVersionsResponse/FinalizedFeatures/Name": None,
    "CreateTopicsRequest/Topics/Configs/Name": None,
    "CreateTopicsResponse/Topics/Configs/Name": None,
    "DescribeConfigsResponse/Results/Configs/Name": None,
    "DescribeConfigsResponse/Results/Configs/Synonyms/Name": None,
    "AlterConfigsRequest/Resources/Configs/Name": None,
    "IncrementalAlterConfigsRequest/Resources/Configs/Name": None,
    "DescribeClientQuotasResponse/Entries/Values/Key": None,
    "AlterClientQuotasRequest/Entries/Ops/Key": None,
    "BeginQuorumEpochRequest/LeaderEndpoints/Name": None,
    "EndQuorumEpochRequest/LeaderEndpoints/Name": None,
    "DescribeQuorumResponse/Nodes/Listeners/Name": None,
    "BrokerRegistrationRequest/Listeners/Name": None,
    "BrokerRegistrationRequest/Features/Name": None,
    "ControllerRegistrationRequest/Listeners/Name": None,
    "ControllerRegistrationRequest/Features/Name": None,
    "AddRaftVoterRequest/Listeners/Name": None,
    "UpdateRaftVoterRequest/Listeners/Name": None,
    "StreamsGroupHeartbeatRequest/ClientTags/Key": None,
    "StreamsGroupDescribeResponse/Groups/Members/ClientTags/Key": None,
    "StreamsGroupHeartbeatRequest/Topology/Subtopologies/StateChangelogTopics/TopicConfigs/Key":
        None,
    "StreamsGroupHeartbeatRequest/Topology/Subtopologies/RepartitionSourceTopics/TopicConfigs/Key":
        None,
    "StreamsGroupDescribeResponse/Groups/Topology/Subtopologies/StateChangelogTopics/TopicConfigs"
    "/Key": None,
    "StreamsGroupDescribeResponse/Groups/Topology/Subtopologies/RepartitionSourceTopics"
    "/TopicConfigs/Key": None,
}


# A field named like this needs a role or a line in NO_ROLE.
SUSPECT = re.compile(
    r"Host|Port|Endpoint|Address|Listener|Error|Message|Topic|Group|User|Principal|Rack|Broker"
    r"|Node|Leader|Replica|Controller|Cluster|Throttle|Session|Transactional|Producer|Regex"
    r"|Member|Partition|Resource|Authorized|Entity|^Name$|Key",
)

# Reviewed names that match SUSPECT and carry no role anywhere.
NO_ROLE = set("""
    AllowAutoTopicCreation:bool AllowReplicationFactorChange:bool ApiKey:int16 BrokerEpoch:int64
    ClientHostAddress:bytes CommittedLeaderEpoch:int32 ConfigurationKeys:[]string
    CurrentLeaderEpoch:int32 EndpointInformationEpoch:int32
    EndpointType:int8 EntityName:string EntityType:string GenerationIdOrMemberEpoch:int32
    GroupEpoch:int32 GroupInstanceId:string GroupState:string GroupType:string HostFilter:string
    IncludeAuthorizedOperations:bool IncludeClusterAuthorizedOperations:bool
    IncludeFencedBrokers:bool IncludeTopicAuthorizedOperations:bool IsFutureKey:bool
    IsMigratingZkBroker:bool KeyType:int8 LeaderEpoch:int32 LeaderRecoveryState:int8
    MemberAssignment:bytes MemberEpoch:int32 MemberMetadata:bytes MemberType:int8
    NumPartitions:int32 OngoingTxnProducerEpoch:int16 OwnerPrincipalType:string
    PartitionEpoch:int32 PartitionMaxBytes:int32 PartitionSize:int64 Partitions:int32
    PreviousBrokerEpoch:int64 Principal:string PrincipalFilter:string PrincipalType:string
    ProducerEpoch:int16 ProducerEpoch:int32 ProducerIdLen:int32 RepartitionSourceTopics:[]int16
    ReplicaDirectoryId:uuid ReplicaEpoch:int32 ReplicaEpoch:int64 ReplicationFactor:int16
    RequestPrincipal:bytes ResourcePatternType:int8 ResponsePartitionLimit:int32
    SessionLifetimeMs:int64 SessionTimeoutMs:int32 SourceTopicRegex:[]int16 SourceTopics:[]int16
    TokenRequesterPrincipalType:string TransactionalIdPattern:string
    V3AndBelowProducerEpoch:int16
""".split())


class Derivation:
    """Reads the definitions of one jar and renders them."""

    def __init__(self, jar):
        self.messages = {}
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if re.fullmatch(r"common/message/\w+\.json", name):
                    text = archive.read(name).decode("utf-8")
                    message = json.loads(re.sub(r"(?m)^\s*//.*$", "", text))
                    if message["type"] in ("request", "response"):
                        self.messages[message["apiKey"], message["type"]] = message
        if not self.messages:
            raise SystemExit(f"derive.py: `{jar}` holds no common/message/*.json")
        self.reviews_used = set()

    def files(self):
        """File name to content, for every key that has a version."""
        rendered = {}
        for key in sorted({key for key, _ in self.messages}):
            request = self.messages[key, "request"]
            response = self.messages[key, "response"]
            if request["validVersions"] == "none":
                continue
            name = request["name"].removesuffix("Request")
            # The request alone says whether its newest version is stable, for both directions.
            unstable = request.get("latestVersionUnstable", False)
            lines = [f"# listeners: {', '.join(sorted(request['listeners']))}"]
            lines += self.message("request", name, request, unstable)
            lines += self.message("response", name, response, unstable)
            rendered[f"{key:02d}_{snake(name)}.layout"] = "\n".join(lines) + "\n"
        unused = sorted(set(REVIEWED) - self.reviews_used)
        if unused:
            raise SystemExit(f"derive.py: reviewed fields that do not exist: {', '.join(unused)}")
        return rendered

    def message(self, direction, name, message, unstable):
        low, high = bounds(message["validVersions"])
        suffix = ""
        if unstable:
            suffix, high = f" unstable={high}", high - 1
        flexible = message["flexibleVersions"]
        if flexible != "none":
            first, last = bounds(flexible)
            assert last is None, f"{name}: flexible versions `{flexible}` end"
            flexible = first
        versions = f"{low}" if low == high else f"{low}-{high}"
        lines = [
            f"{direction} {name} {message['apiKey']} versions={versions} "
            f"flexible={flexible}{suffix}"
        ]
        structs = {struct["name"]: struct for struct in message.get("commonStructs", [])}
        self.fields(message.get("fields", []), structs, message["name"], 0, lines)
        return lines

    def fields(self, fields, structs, path, depth, lines):
        known = {
            "name", "type", "versions", "about", "fields", "default", "entityType",
            "nullableVersions", "ignorable", "mapKey", "tag", "taggedVersions", "zeroCopy",
        }
        for field in fields:
            here = f"{path}/{field['name']}"
            strange = set(field) - known
            assert not strange, f"{here}: unknown properties {sorted(strange)}"
            element = field["type"].removeprefix("[]")
            array = field["type"].startswith("[]")
            if element in SCALARS:
                type_, children = field["type"], None
            else:
                children = field.get("fields") or structs[element]["fields"]
                type_ = "[]" if array else "struct"
            words = [field["name"], type_, versions_word(field["versions"])]
            if "nullableVersions" in field:
                words.append(f"null={versions_word(field['nullableVersions'])}")
            if "tag" in field:
                words.append(f"tag={field['tag']}")
                words.append(f"tagged={versions_word(field['taggedVersions'])}")
            default = default_word(field, here)
            if default is not None:
                words.append(f"default={default}")
            role = self.role(field, here, children is not None)
            if role:
                words.append(f"role={role}")
            lines.append("  " * depth + " ".join(words))
            if children is not None:
                self.fields(children, structs, here, depth + 1, lines)

    def role(self, field, path, is_struct):
        if path in REVIEWED:
            self.reviews_used.add(path)
            return REVIEWED[path]
        entity = field.get("entityType")
        if entity is not None:
            return BY_ENTITY.get(entity, "unreviewed")
        if is_struct:
            return None
        role = BY_NAME.get((field["name"], field["type"]))
        if role is None and SUSPECT.search(field["name"]) \
                and f"{field['name']}:{field['type']}" not in NO_ROLE:
            return "unreviewed"
        return role


def bounds(text):
    """`3-13` to (3, 13), `4` to (4, 4), `3+` to (3, None)."""
    if text.endswith("+"):
        return int(text[:-1]), None
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def versions_word(text):
    low, high = bounds(text)
    if high is None:
        return f"{low}+"
    return f"{low}" if low == high else f"{low}-{high}"


def default_word(field, path):
    """The default where it is not what the type implies (0, false, empty)."""
    if "default" not in field:
        return None
    default = field["default"]
    text = str(default).lower() if isinstance(default, bool) else str(default)
    type_ = field["type"]
    if text == "null":
        assert "nullableVersions" in field, f"{path}: null by default but not nullable"
        return text
    if type_ == "bool":
        assert text in ("true", "false"), f"{path}: default `{text}`"
        return None if text == "false" else text
    if re.fullmatch(r"u?int\d+", type_):
        number = int(text, 0)
        return None if number == 0 else str(number)
    assert type_ == "string" and text == "", f"{path}: default `{text}` of {type_}"
    return None


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def check(rendered, directory):
    """Prints a unified diff, returns whether there was one."""
    found = {path.name: path.read_text() for path in directory.glob("*.layout")}
    differs = False
    for name in sorted(set(rendered) | set(found)):
        before, after = found.get(name, ""), rendered.get(name, "")
        if before != after:
            differs = True
            sys.stdout.writelines(difflib.unified_diff(
                before.splitlines(keepends=True), after.splitlines(keepends=True),
                f"reviewed/{name}", f"jar/{name}"))
    return differs


def main(arguments):
    checking = arguments[:1] == ["--check"]
    if checking:
        arguments = arguments[1:]
    if len(arguments) != 2:
        raise SystemExit("usage: derive.py [--check] JAR DIR")
    rendered = Derivation(arguments[0]).files()
    directory = Path(arguments[1])
    if checking:
        if check(rendered, directory):
            raise SystemExit(1)
        print(f"{len(rendered)} layouts are what the jar says")
        return
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.layout"):
        if stale.name not in rendered:
            stale.unlink()
    for name, text in rendered.items():
        (directory / name).write_text(text)
    print(f"{len(rendered)} layouts written")


if __name__ == "__main__":
    main(sys.argv[1:])
