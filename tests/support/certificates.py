"""Certificates of an authority of our own, as files."""

import trustme


class Certificates:
    """An authority, and what it issues.

    Attributes:
        authority: The file with the authority's certificate, for those who check.
        directory: Where all files are.
    """

    def __init__(self, directory):
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.authority = directory / "authority.pem"
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(self.authority)

    def issue(self, *names, common_name=None, **dates):
        """Make a certificate.

        Args:
            *names: Host names and addresses, or a name with an @ for a client.
            common_name: The subject's CN; RabbitMQ takes it for the user's name if told so.
            **dates: `not_before` and `not_after`.

        Returns:
            The files with the private key and with the certificate.
        """
        issued = self._ca.issue_cert(*names, common_name=common_name, **dates)
        key, chain = self.directory / f"{names[0]}.key.pem", self.directory / f"{names[0]}.pem"
        issued.private_key_pem.write_to_path(key)
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return key, chain
