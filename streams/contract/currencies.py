"""Currencies of ISO 4217 with the number of digits of their minor unit.

Current national currencies and those of currency unions (XAF, XOF, XPF, XCD, XCG). Metals, bond market units,
fund codes, testing (XTS) and no currency (XXX) are left out: no card transaction is made in them.
"""

from __future__ import annotations

_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY
    COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR
    MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG
    SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES
    WST XCD XCG YER ZAR ZMW ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
}

EXPONENTS: dict[str, int] = {code: digits for digits, codes in _BY_EXPONENT.items() for code in codes.split()}
"""Upper-case code -> digits of the minor unit: 100 JPY is amount_minor 100, 1 EUR is 100, 1 KWD is 1000."""

CANONICAL: dict[str, str] = {code: code for code in EXPONENTS} | {code.lower(): code for code in EXPONENTS}
"""Accepted spelling (upper or lower case) -> upper-case code."""
