"""What is said between machines, and how it gets there.

Every error that this room raises is a ``WireError`` and also the builtin that a caller expects::

    WireError
      NameRefused       ValueError       messages: a fleet or device name that cannot stand in a topic
      MessageRefused    ValueError       messages: a payload that is not a message of this contract
      AddressRefused    ValueError       address: no address of a broker, or one that must not be used
        InsecureRefused PermissionError  address: plain MQTT that would leave this machine
      BrokerUnreachable ConnectionError  causes: nobody answered
      BrokerRefused     PermissionError  causes: the broker answered no
      BlobRefused       ValueError       blobs: a reference, chunk or digest that does not fit
        DigestMismatch  ValueError       blobs: all chunks came, and they are not the blob
      MissingBlob       KeyError         blobs: not here, or not whole yet
      ConfigError       ValueError       host: a configuration file that is not usable
      FolderInUse       PermissionError  host: another process works in this folder
"""
