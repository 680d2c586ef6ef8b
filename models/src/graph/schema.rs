//! ONNX's messages (`onnx-ml.proto`): every field, how it is encoded, and what it holds.

/// A message of ONNX's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Training,
    Function,
    OperatorSet,
    /// A key with a value; never part of a tensor, where it would be external data.
    Entry,
    Annotation,
    ValueInfo,
    Type,
    TensorType,
    SequenceType,
    MapType,
    OptionalType,
    OpaqueType,
    Shape,
    Dimension,
    Segment,
    Configuration,
    NodeConfiguration,
    Sharding,
    ShardedDimension,
    SimpleSharding,
    Group,
}

/// How a field is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A varint.
    Number,
    /// Four bytes.
    Fixed32,
    /// A text or bytes.
    Bytes,
    /// Varints, packed or one by one.
    Numbers,
    /// Four bytes each, packed or one by one.
    Fixed32s,
    /// Eight bytes each, packed or one by one.
    Fixed64s,
    /// Texts or bytes, one by one.
    Texts,
    /// One message.
    One(Message),
    /// Messages, one by one.
    Many(Message),
    /// What says that a tensor's data are elsewhere: where (`external_data`).
    ExternalData,
    /// The same: whether (`data_location`).
    DataLocation,
}

impl Kind {
    /// Whether the field may stand more than once.
    pub(super) fn repeats(self) -> bool {
        matches!(
            self,
            Self::Numbers
                | Self::Fixed32s
                | Self::Fixed64s
                | Self::Texts
                | Self::Many(_)
                | Self::ExternalData
        )
    }
}

use Kind::{
    Bytes, DataLocation, ExternalData, Fixed32, Fixed32s, Fixed64s, Many, Number, Numbers, One,
    Texts,
};

impl Message {
    /// What the field of that number is; none when there is no such field.
    pub(super) fn field(self, number: u64) -> Option<Kind> {
        let kind = match (self, number) {
            (Self::Model, 1 | 5) => Number,
            (Self::Model, 2 | 3 | 4 | 6) => Bytes,
            (Self::Model, 7) => One(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Many(Self::OperatorSet),
            (Self::Model, 14) => Many(Self::Entry),
            (Self::Model, 20) => Many(Self::Training),
            (Self::Model, 25) => Many(Self::Function),
            (Self::Model, 26) => Many(Self::Configuration),
            (Self::Graph, 1) | (Self::Function, 7) => Many(Self::Node),
            (Self::Graph, 2 | 10) => Bytes,
            (Self::Graph, 5) => Many(Self::Tensor),
            (Self::Graph, 11..=13) | (Self::Function, 12) => Many(Self::ValueInfo),
            (Self::Graph, 14) => Many(Self::Annotation),
            (Self::Graph, 15) => Many(Self::Sparse),
            (Self::Graph, 16) => Many(Self::Entry),
            (Self::Node, 1 | 2) => Texts,
            (Self::Node, 3 | 4 | 6..=8) => Bytes,
            (Self::Node, 5) | (Self::Function, 11) => Many(Self::Attribute),
            (Self::Node, 9) => Many(Self::Entry),
            (Self::Node, 10) => Many(Self::NodeConfiguration),
            (Self::Function, 1 | 8 | 10 | 13) => Bytes,
            (Self::Function, 4..=6) => Texts,
            (Self::Function, 14) => Many(Self::Entry),
            (Self::Training, 1 | 2) => One(Self::Graph),
            (Self::Training, 3 | 4) => Many(Self::Entry),
            _ => return self.field_of_values(number),
        };
        Some(kind)
    }

    /// The same for what holds values, types and shapes.
    fn field_of_values(self, number: u64) -> Option<Kind> {
        let kind = match (self, number) {
            (Self::Attribute, 1 | 4 | 13 | 21) => Bytes,
            (Self::Attribute, 2) => Fixed32,
            (Self::Attribute, 3 | 20) => Number,
            (Self::Attribute, 5) => One(Self::Tensor),
            (Self::Attribute, 6) => One(Self::Graph),
            (Self::Attribute, 7) => Fixed32s,
            (Self::Attribute, 8) => Numbers,
            (Self::Attribute, 9) => Texts,
            (Self::Attribute, 10) => Many(Self::Tensor),
            (Self::Attribute, 11) => Many(Self::Graph),
            (Self::Attribute, 14) => One(Self::Type),
            (Self::Attribute, 15) => Many(Self::Type),
            (Self::Attribute, 22) => One(Self::Sparse),
            (Self::Attribute, 23) => Many(Self::Sparse),
            (Self::Tensor, 1 | 5 | 7 | 11) => Numbers,
            (Self::Tensor, 2) => Number,
            (Self::Tensor, 3) => One(Self::Segment),
            (Self::Tensor, 4) => Fixed32s,
            (Self::Tensor, 6) => Texts,
            (Self::Tensor, 8 | 9 | 12) => Bytes,
            (Self::Tensor, 10) => Fixed64s,
            (Self::Tensor, 13) => ExternalData,
            (Self::Tensor, 14) => DataLocation,
            (Self::Tensor, 16) => Many(Self::Entry),
            (Self::Sparse, 1 | 2) => One(Self::Tensor),
            (Self::Sparse, 3) => Numbers,
            (Self::ValueInfo, 1 | 3) => Bytes,
            (Self::ValueInfo, 2) => One(Self::Type),
            (Self::ValueInfo, 4) => Many(Self::Entry),
            (Self::Type, 1) => One(Self::TensorType),
            (Self::Type, 4) => One(Self::SequenceType),
            (Self::Type, 5) => One(Self::MapType),
            (Self::Type, 6) => Bytes,
            (Self::Type, 7) => One(Self::OpaqueType),
            // A sparse tensor's type is made like a dense one's.
            (Self::Type, 8) => One(Self::TensorType),
            (Self::Type, 9) => One(Self::OptionalType),
            (Self::TensorType | Self::MapType, 1) => Number,
            (Self::TensorType, 2) => One(Self::Shape),
            (Self::SequenceType | Self::OptionalType, 1) | (Self::MapType, 2) => One(Self::Type),
            (Self::Shape, 1) => Many(Self::Dimension),
            (Self::Dimension, 1) => Number,
            (Self::Dimension, 2 | 3) => Bytes,
            _ => return self.field_of_the_rest(number),
        };
        Some(kind)
    }

    /// The same for what no model here needs, but exporters may write.
    fn field_of_the_rest(self, number: u64) -> Option<Kind> {
        let kind = match (self, number) {
            (Self::OperatorSet, 1) => Bytes,
            (Self::OperatorSet, 2) => Number,
            (Self::Entry | Self::OpaqueType, 1 | 2) => Bytes,
            (Self::Annotation, 1) => Bytes,
            (Self::Annotation, 2) => Many(Self::Entry),
            (Self::Segment, 1 | 2) => Number,
            (Self::Configuration, 1) => Bytes,
            (Self::Configuration, 2) => Number,
            (Self::Configuration, 3) => Texts,
            (Self::NodeConfiguration, 1) => Bytes,
            (Self::NodeConfiguration, 2) => Many(Self::Sharding),
            (Self::NodeConfiguration, 3) => Number,
            (Self::Sharding, 1) => Bytes,
            (Self::Sharding, 2) => Numbers,
            (Self::Sharding, 3) => Many(Self::Group),
            (Self::Sharding, 4) => Many(Self::ShardedDimension),
            (Self::ShardedDimension, 1) => Number,
            (Self::ShardedDimension, 2) => Many(Self::SimpleSharding),
            (Self::SimpleSharding, 1 | 3) => Number,
            (Self::SimpleSharding, 2) => Bytes,
            (Self::Group, 1) => Number,
            (Self::Group, 2) => Numbers,
            _ => return None,
        };
        Some(kind)
    }

    /// What an error calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Graph => "graph",
            Self::Node => "node",
            Self::Attribute => "attribute",
            Self::Tensor => "tensor",
            Self::Sparse => "sparse tensor",
            Self::Training => "training_info",
            Self::Function => "function",
            Self::OperatorSet => "operator set",
            Self::Entry => "entry",
            Self::Annotation => "annotation",
            Self::ValueInfo => "value",
            Self::Type
            | Self::TensorType
            | Self::SequenceType
            | Self::MapType
            | Self::OptionalType
            | Self::OpaqueType => "type",
            Self::Shape => "shape",
            Self::Dimension => "dimension",
            Self::Segment => "segment",
            Self::Configuration
            | Self::NodeConfiguration
            | Self::Sharding
            | Self::ShardedDimension
            | Self::SimpleSharding
            | Self::Group => "device configuration",
        }
    }

    /// The field that names it in errors, if it has one.
    pub(super) fn name_field(self) -> Option<u64> {
        match self {
            Self::Node => Some(3),
            Self::Graph => Some(2),
            Self::Attribute | Self::Function | Self::ValueInfo => Some(1),
            Self::Tensor => Some(8),
            _ => None,
        }
    }
}
