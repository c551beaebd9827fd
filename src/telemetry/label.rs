//! The values that labels can take. Each label of a metric is one of these enums, a name from the
//! configuration, or a tenant (bounded by the recorder): nothing a peer says becomes a new series.

macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// How many values there are; not every label has an array of cells.
            #[allow(dead_code)]
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// The label's text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

label! {
    /// What became of a request.
    Outcome {
        /// Sent to the broker, unchanged in what it asks for.
        Forwarded = "forwarded",
        /// Answered here, as intended (ApiVersions, SASL, DescribeAcls, …).
        Answered = "answered",
        /// Parts refused here, the rest sent to the broker.
        Partial = "partial",
        /// Refused here as a whole, with an answer.
        Refused = "refused",
        /// Refused here as a whole without an answer: acks=0, or the connection was closed.
        Closed = "closed",
        /// Sent, but the broker connection ended before the answer.
        Failed = "failed",
    }
}

label! {
    /// Why something was refused; the same words stand in the audit log.
    Reason {
        /// No rule allows it, or a rule denies it.
        Authorization = "authorization",
        /// Outside the tenant's boundary.
        Boundary = "boundary",
        /// The client did not prove who it is, or asked before it had.
        Authentication = "authentication",
        /// The session's proof has expired (KIP-368).
        Expired = "expired",
        /// A `TopicPolicy`: name, partitions, configs, acks, compression, size.
        TopicRules = "topic_rules",
        /// A required or bound header is missing or differs.
        Headers = "headers",
        /// The record's key breaks its schema.
        Key = "key",
        /// The record's value breaks its schema.
        Value = "value",
        /// A quota on a rate of connections or mutations.
        Quota = "quota",
        /// An API key or version this proxy does not know.
        Unsupported = "unsupported",
        /// An API between brokers or controllers.
        BrokerOnly = "broker_only",
        /// A replica id, control batch or other claim to be a broker.
        Impersonation = "impersonation",
        /// Bytes that are not a Kafka request.
        Malformed = "malformed",
        /// One of `limits`.
        Limit = "limit",
        /// Needs a part (registry, broker) that cannot be reached.
        Unavailable = "unavailable",
    }
}

label! {
    /// Which set of policies is decided beside the one in force, without effect.
    ShadowSet {
        /// The policies in force together with those whose `mode` is `observe`.
        Observe = "observe",
        /// The directory that `authorization.shadow` names.
        Shadow = "shadow",
    }
}

label! {
    /// What a set that is decided beside the one in force would have done otherwise.
    Would {
        /// Refused what went ahead.
        Deny = "would_deny",
        /// Let go ahead what was refused.
        Allow = "would_allow",
    }
}

label! {
    /// Which way frames go.
    Direction {
        /// From the client.
        In = "in",
        /// To the client.
        Out = "out",
    }
}

label! {
    /// What was done about a record that broke its schema.
    ViolationAction {
        /// Refused with INVALID_RECORD.
        Reject = "reject",
        /// Let through and counted.
        Warn = "warn",
        /// Let through because the policy is only observed.
        Observe = "observe",
    }
}

label! {
    /// How a client tried to prove who it is.
    Method {
        /// The TLS handshake, client certificate included.
        Tls = "tls",
        /// SASL/OAUTHBEARER.
        Oauthbearer = "oauthbearer",
        /// SASL/PLAIN.
        Plain = "plain",
        /// SASL/SCRAM-SHA-256 or -512.
        Scram = "scram",
        /// An unknown SASL mechanism, or messages out of order.
        Sasl = "sasl",
    }
}

label! {
    /// What is made of files and made again when they change.
    Reloaded {
        /// Policies and schemas.
        Policies = "policies",
        /// What a listener offers: certificate, key, authorities, revocation lists.
        ListenerTls = "listener_tls",
        /// TLS towards the brokers.
        UpstreamTls = "upstream_tls",
        /// The keys of an issuer of tokens.
        Keys = "keys",
        /// Users with passwords.
        Users = "users",
    }
}

label! {
    /// How much of a TLS handshake with a client was done.
    Handshake {
        /// All of it.
        Full = "full",
        /// The client came back with a ticket.
        Resumed = "resumed",
    }
}

label! {
    /// What a date is the end of.
    Expiring {
        /// A listener's own certificate.
        Listener = "listener",
        /// The revocation list of a listener that ends first.
        RevocationList = "revocation_list",
        /// The certificate shown to brokers.
        Upstream = "upstream",
    }
}

label! {
    /// Why a connection ended with its client certificate (`tls.recheck`).
    CertificateEnd {
        /// It has expired.
        Expired = "expired",
        /// It is on a revocation list.
        Revoked = "revoked",
        /// It is refused for another reason: its authority is no longer trusted, say.
        Refused = "refused",
    }
}

label! {
    /// What came of a question to an issuer.
    IssuerOutcome {
        /// An answer that can be used.
        Answered = "answered",
        /// No answer in time, or none at all.
        Unreachable = "unreachable",
        /// An answer that cannot be used: an error, or not what was asked for.
        Unusable = "unusable",
    }
}

label! {
    /// How far a broker connection got before it failed.
    DialStage {
        /// Name resolution.
        Resolve = "resolve",
        /// TCP.
        Connect = "connect",
        /// TLS.
        Tls = "tls",
        /// SASL towards the broker.
        Sasl = "sasl",
        /// Reading what the broker supports.
        Versions = "versions",
    }
}

label! {
    /// What became of a session at a broker that was to be renewed.
    Renewal {
        /// The broker granted another one.
        Renewed = "renewed",
        /// The broker refused; the connection ended.
        Refused = "refused",
        /// There was nothing to authenticate with; tried again.
        Failed = "failed",
    }
}

label! {
    /// What came of asking for a token.
    Fetch {
        /// A token.
        Ok = "ok",
        /// None.
        Failed = "failed",
    }
}

label! {
    /// Why an audit line was lost.
    DropCause {
        /// The queue was full.
        QueueFull = "queue_full",
        /// The sink could not be written.
        Write = "write",
        /// Allowed decisions of too many kinds were counted.
        TableFull = "table_full",
        /// One request asked for more than is kept of it.
        Request = "request",
    }
}
